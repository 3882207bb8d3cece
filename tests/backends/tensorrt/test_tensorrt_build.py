"""Real TensorRT-RTX builds without a GPU, and the standard TensorRT path through NVIDIA's 11.4 bindings over the RTX library."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from exports import exported
from helpers import StoppedError, stop, tiny_model, tiny_spec
from small_network import write_small
from tensorrt_plans import GPU

from rtformer_deploy.backends import RTX_CAPABILITIES, build, choose_backend
from rtformer_deploy.backends.tensorrt.build import _capabilities as capabilities_of
from rtformer_deploy.backends.tensorrt.build import _configure as configure
from rtformer_deploy.backends.tensorrt.build import _target as target_of
from rtformer_deploy.backends.tensorrt.library import load_library
from rtformer_deploy.backends.tensorrt.log import MessageLog
from rtformer_deploy.commands.calibrate import CalibrateRequest, calibrate_file
from rtformer_deploy.errors import BuildError, MissingPackageError
from rtformer_deploy.files import sha256
from rtformer_deploy.formats.model_file import save_model
from rtformer_deploy.nvidia.driver import GpuInfo
from rtformer_deploy.pipeline import prepare_model
from rtformer_deploy.types import BuildOptions, Feedback, Head

pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx")

FP32, FP16 = BuildOptions(), BuildOptions(precision="fp16")


def test_a_plan_of_a_small_model_says_what_it_is() -> None:
    spec = tiny_spec()
    engine = build(tiny_model(), spec, "tensorrt-rtx", FP32)
    assert len(engine.plan) > 1000
    assert engine.info.plan_sha256 == sha256(engine.plan)
    assert engine.info.builder_version.startswith("tensorrt-rtx 1.")
    assert engine.info.gpu == "compute capability 8.0, 8.6, 8.9, 12.0"
    assert engine.info.precision.state == "requested"
    assert set(engine.info.precision.layers) == {"fp32"}


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "compute"), [("slim", 53 + 4), ("base", 51 + 4)])  # convolutions and matrix products
def test_fp32_and_fp16_plans_of_the_network(variant: str, compute: int) -> None:
    made = exported(variant)
    plans = {}
    for options in (FP32, FP16):
        engine = build(prepare_model(made.model, "tensorrt-rtx", options), made.spec, "tensorrt-rtx", options)
        assert engine.info.precision.state == "requested"
        assert dict(engine.info.precision.layers) == {options.precision: compute}
        plans[options.precision] = len(engine.plan)
    assert plans["fp16"] < 0.75 * plans["fp32"]


@pytest.mark.parametrize("strip", [False, True])
def test_weights_are_left_out_by_two_flags(strip: bool) -> None:
    """No TensorRT builds such a plan without a GPU, so its builder's settings are looked at."""
    library = load_library("tensorrt-rtx")
    trt = library.module
    config = configure(library, trt.Builder(MessageLog(trt).logger), BuildOptions(strip=strip), RTX_CAPABILITIES)
    assert [config.get_flag(flag) for flag in (trt.BuilderFlag.REFIT, trt.BuilderFlag.STRIP_PLAN)] == [strip, strip]
    assert not config.get_flag(trt.BuilderFlag.REFIT_IDENTICAL)


@pytest.mark.parametrize(
    ("gpu", "fp8", "capabilities", "target", "chosen"),
    [
        (None, False, ("8.0", "8.6", "8.9", "12.0"), "compute capability 8.0, 8.6, 8.9, 12.0", []),
        (None, True, ("8.9", "12.0"), "compute capability 8.9, 12.0", ["SM89", "SM120"]),
        (GPU, True, ("8.9", "12.0"), "compute capability 8.9, 12.0", ["SM89", "SM120"]),
        (dataclasses.replace(GPU, compute_capability="9.0"), True, (), "NVIDIA Fake (9.0)", ["CURRENT"]),
    ],
)
def test_an_rtx_plan_holds_code_for_gpus_that_can_run_it(
    gpu: GpuInfo | None, fp8: bool, capabilities: tuple[str, ...], target: str, chosen: list[str]
) -> None:
    library = load_library("tensorrt-rtx")
    trt = library.module
    assert capabilities_of(library, gpu, fp8) == capabilities
    assert target_of(library, gpu, capabilities) == target
    config = configure(library, trt.Builder(MessageLog(trt).logger), BuildOptions(), capabilities)
    assert [config.get_compute_capability(index).name for index in range(config.num_compute_capabilities)] == chosen


def test_an_fp16_build_of_an_fp32_graph_is_a_mismatch() -> None:
    made = exported()
    engine = build(prepare_model(made.model, "tensorrt-rtx", FP32), made.spec, "tensorrt-rtx", FP16)
    assert engine.info.precision.state == "mismatch"
    assert "57 compute layers in fp32" in engine.info.precision.detail


def test_a_dynamic_batch_takes_the_profile() -> None:
    made = exported(batch="batch")
    options = dataclasses.replace(FP16, batch=(1, 2, 4))
    engine = build(prepare_model(made.model, "tensorrt-rtx", options), made.spec, "tensorrt-rtx", options)
    assert engine.info.batch == (1, 2, 4)


def test_a_fixed_batch_refuses_another() -> None:
    spec = tiny_spec()
    with pytest.raises(BuildError, match="fixed batch of 1"):
        build(tiny_model(), spec, "tensorrt-rtx", BuildOptions(batch=(1, 2, 4)))


@pytest.mark.parametrize("head", ["logits", "labels"])
def test_the_other_heads_build(head: Head) -> None:
    made = exported(head=head)
    engine = build(prepare_model(made.model, "tensorrt-rtx", FP16), made.spec, "tensorrt-rtx", FP16)
    assert engine.info.outputs[0].dtype == ("uint8" if head == "labels" else "float32")


def test_what_tensorrt_cannot_read_is_said_in_its_words() -> None:
    spec = tiny_spec()
    model = tiny_model()
    next(node for node in model.graph if node.op_type == "Conv").op_type = "Nonsense"
    with pytest.raises(BuildError, match="TensorRT cannot read the model"):
        build(model, spec, "tensorrt-rtx", FP32)


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        (BuildOptions(timing_cache=b""), "--timing-cache"),
        (BuildOptions(version_compatible=True), "--version-compatible"),
        (BuildOptions(hardware_compatible=True), "--hardware-compatible"),
        (BuildOptions(plugins=True), "--plugins"),
    ],
)
def test_rtx_refuses_by_name_what_has_no_effect_there(options: BuildOptions, flag: str) -> None:
    spec = tiny_spec()
    with pytest.raises(BuildError, match=flag):
        build(tiny_model(), spec, "tensorrt-rtx", options)


def test_progress_is_told_and_can_stop_the_build() -> None:
    spec = tiny_spec()
    seen: list[tuple[str, int, int]] = []
    build(tiny_model(), spec, "tensorrt-rtx", FP32, lambda *step: seen.append(step))
    assert seen
    assert all(0 < done <= total for _, done, total in seen)
    with pytest.raises(StoppedError):
        build(tiny_model(), spec, "tensorrt-rtx", FP32, stop)


def test_an_interrupt_in_the_callback_ends_as_an_interrupt() -> None:
    spec = tiny_spec()

    def interrupt(*_step: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        build(tiny_model(), spec, "tensorrt-rtx", FP32, interrupt)
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_during_a_build_leaves_nothing_behind(tmp_path: Path) -> None:
    save_model(exported(size=(256, 512)).model, tmp_path / "model.onnx")
    command = [sys.executable, "-m", "rtformer_deploy", "build-engine", "--fp16", "--backend", "tensorrt-rtx"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    maps = Path(f"/proc/{process.pid}/maps")
    while process.poll() is None and "libtensorrt_rtx" not in maps.read_text():
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    if process.returncode == 0:
        pytest.skip("the build was over before the signal came")
    assert process.returncode == 130
    assert errors.strip().splitlines() == ["Interrupted."]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx"]


def test_a_missing_tensorrt_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    spec = tiny_spec()
    with pytest.raises(MissingPackageError, match=r"pip install 'rtformer-deploy\[tensorrt\]'"):
        build(tiny_model(), spec, "tensorrt", FP32)


def test_without_a_gpu_auto_takes_openvino_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtformer_deploy.backends.gpus", lambda: ())
    monkeypatch.setattr("rtformer_deploy.backends._installed", lambda package: package != "tensorrt")
    backend, reason = choose_backend()
    assert backend == "openvino"
    assert "no GPU" in reason
    monkeypatch.setattr("rtformer_deploy.backends._installed", lambda package: False)
    assert choose_backend()[0] == "onnxruntime"


@pytest.mark.parametrize(("installed", "wanted"), [({"tensorrt", "tensorrt_rtx"}, "tensorrt"), ({"tensorrt_rtx"}, "tensorrt-rtx")])
def test_with_a_gpu_auto_takes_a_tensorrt(monkeypatch: pytest.MonkeyPatch, installed: set[str], wanted: str) -> None:
    monkeypatch.setattr("rtformer_deploy.backends.gpus", lambda: ("NVIDIA Something (8.9)",))
    monkeypatch.setattr("rtformer_deploy.backends._installed", installed.__contains__)
    backend, reason = choose_backend()
    assert backend == wanted
    assert "NVIDIA Something (8.9)" in reason


def run_with(bindings: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (str(bindings), os.environ.get("PYTHONPATH"))))}
    command = [sys.executable, "-m", "rtformer_deploy", "build-engine", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_standard_tensorrt_path_builds_and_calls_its_plan_what_it_is(tensorrt_11: Path, tmp_path: Path) -> None:
    save_model(exported().model, tmp_path / "model.onnx")
    done = run_with(tensorrt_11, tmp_path, "--fp16", "--backend", "tensorrt", "--workspace", "256", "--optimization-level", "1")
    assert done.returncode == 0, done.stderr
    info = json.loads((tmp_path / "engine.plan.json").read_text())
    assert info["backend"] == "tensorrt"
    assert info["builder_version"] == "tensorrt 11.4.0.106 (bindings over TensorRT-RTX: an RTX plan)"
    assert info["precision"]["layers"] == {"fp16": 57}
    assert "RTX plan" in done.stdout


def test_the_standard_path_takes_a_dynamic_batch_and_fp32(tensorrt_11: Path, tmp_path: Path) -> None:
    save_model(exported(batch="batch").model, tmp_path / "model.onnx")
    done = run_with(tensorrt_11, tmp_path, "--backend", "tensorrt", "--min", "1", "--opt", "2x3x128x256", "--max", "4")
    assert done.returncode == 0, done.stderr
    info = json.loads((tmp_path / "engine.plan.json").read_text())
    assert info["batch"] == [1, 2, 4]
    assert info["precision"]["layers"] == {"fp32": 57}


def test_the_standard_path_takes_int8_and_a_recipe(tensorrt_11: Path, tmp_path: Path) -> None:
    small = write_small(tmp_path)
    done = run_with(tensorrt_11, tmp_path, "--int8", "--images", str(small.images), "--backend", "tensorrt", "--threads", "1")
    assert done.returncode == 0, done.stderr
    info = json.loads((tmp_path / "engine.plan.json").read_text())
    assert info["backend"] == "tensorrt"
    assert info["precision"]["asked"] == "int8"
    assert info["precision"]["layers"] == {"int8": 4, "fp16": 2}
    calibrate_file(CalibrateRequest(small.model, small.images, tmp_path / "ranges.json", threads=1), Feedback())
    (tmp_path / "mix.toml").write_text(
        f'name = "small"\ndataset = "{small.dataset}"\n[architecture]\nname = "small"\n[input]\nsize = [48, 64]\n[build]\n'
        'precision = "int8"\nranges = "ranges.json"\nkeep = ["body.*"]\nfp32 = ["stem.0", "stem.0/Relu"]\n'
    )
    done = run_with(tensorrt_11, tmp_path, "--recipe", "mix.toml", "--backend", "tensorrt", "--strict")
    assert done.returncode == 0, done.stderr
    info = json.loads((tmp_path / "engine.plan.json").read_text())
    assert info["precision"]["layers"] == {"int8": 1, "fp16": 4, "fp32": 1}
    assert info["precision"]["state"] in ("requested", "verified")  # one layer of INT8 is what was asked for
    assert info["options"]["mixed"] is True
