"""TensorRT plans before anything is opened: every message about one that does not run here."""

from __future__ import annotations

import sys

import pytest
from tensorrt_plans import GPU, half_ends, make_engine, make_info

from rtformer_deploy.backends import check_engine, open_engine
from rtformer_deploy.backends.tensorrt.plan import INVALID_BECAUSE, runs_on
from rtformer_deploy.errors import EngineError, MissingPackageError
from rtformer_deploy.runtime.session import rebuild_command
from rtformer_deploy.types import PrecisionFound, Refit


def test_the_reasons_are_tensorrt_rtxs() -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx")
    assert {int(member) for member in trt.EngineInvalidityDiagnostics.__members__.values()} == INVALID_BECAUSE.keys()


def test_without_a_gpu_the_plan_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtformer_deploy.backends.tensorrt.plan.gpus", lambda: ())
    monkeypatch.setattr("rtformer_deploy.backends.tensorrt.plan.why_none", lambda: "no NVIDIA driver is installed")
    info = make_info(backend="tensorrt-rtx", gpu="compute capability 8.0, 8.6")
    with pytest.raises(EngineError) as caught:
        check_engine(info)
    assert caught.value.what == (
        "This TensorRT-RTX plan, built for compute capability 8.0, 8.6, needs an NVIDIA GPU, and there is none here: "
        "no NVIDIA driver is installed."
    )
    assert caught.value.hint == (
        "The plan itself is fine where such a GPU is. For this machine's CPU: "
        "rtformer-deploy build-engine MODEL.onnx --backend openvino --fp16 --min 1 --opt 2 --max 3"
    )
    with pytest.raises(EngineError, match="This TensorRT plan needs an NVIDIA GPU"):
        open_engine(make_engine(gpu="unknown"))


def test_what_is_for_a_gpu_alone_is_not_suggested_for_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtformer_deploy.backends.tensorrt.plan.gpus", lambda: ())
    refit = Refit(False, {}, "0" * 64)
    info = make_info(precision=PrecisionFound("fp8", "requested"), refit=refit)
    with pytest.raises(EngineError) as caught:
        check_engine(info)
    assert str(caught.value.hint).endswith("--backend openvino --int8 --min 1 --opt 2 --max 3")
    assert rebuild_command(info).endswith("--backend tensorrt --fp8 --strip --min 1 --opt 2 --max 3")


def test_fp16_ends_are_in_the_rebuild_command_and_not_suggested_for_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtformer_deploy.backends.tensorrt.plan.gpus", lambda: ())
    info = half_ends(make_info(batch=(1, 1, 1)))
    assert rebuild_command(info) == "rtformer-deploy build-engine MODEL.onnx --backend tensorrt --fp16 --io fp16"
    with pytest.raises(EngineError) as caught:
        check_engine(info)
    assert str(caught.value.hint).endswith("rtformer-deploy build-engine MODEL.onnx --backend openvino --fp16")


@pytest.mark.parametrize(("backend", "package"), [("tensorrt", "tensorrt"), ("tensorrt-rtx", "tensorrt_rtx")])
def test_a_missing_tensorrt_names_the_extra(monkeypatch: pytest.MonkeyPatch, backend: str, package: str) -> None:
    monkeypatch.setattr("rtformer_deploy.backends.tensorrt.plan.gpus", lambda: (GPU,))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError, match=rf"needs the package {package}, .*\nRun: pip install 'rtformer-deploy\[{backend}\]'"):
        check_engine(make_info(backend=backend))


@pytest.mark.parametrize(
    ("backend", "target", "options", "runs"),
    [
        ("tensorrt", "NVIDIA Fake (8.6)", {}, True),
        ("tensorrt", "NVIDIA Other (8.6)", {}, False),
        ("tensorrt", "NVIDIA Fake (8.9)", {}, False),
        ("tensorrt", "NVIDIA H100 (9.0)", {"hardware_compatible": True}, True),
        ("tensorrt", "unknown", {}, True),
        ("tensorrt", "compute capability 8.0, 8.6, 8.9, 12.0", {}, True),
        ("tensorrt-rtx", "compute capability 8.0, 8.6, 8.9, 12.0", {}, True),
        ("tensorrt-rtx", "compute capability 8.0", {}, True),
        ("tensorrt-rtx", "compute capability 8.9, 12.0", {}, False),
        ("tensorrt-rtx", "NVIDIA Other (8.6)", {}, True),
        ("tensorrt-rtx", "NVIDIA Other 8.6 (9.0)", {}, False),
    ],
)
def test_which_gpus_a_plan_runs_on(backend: str, target: str, options: dict[str, bool], runs: bool) -> None:
    assert runs_on(make_info(backend=backend, gpu=target, options=options), GPU) is runs
