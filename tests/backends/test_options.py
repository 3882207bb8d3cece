"""Build options: every flag stands once, in BuildOptions; each backend's row says which it knows, and the others are refused by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from helpers import tiny_model, tiny_spec
from tensorrt_plans import GPU, set_gpus

from rtformer_deploy.backends import BACKENDS, build, check_options, has_fp8
from rtformer_deploy.errors import BuildError
from rtformer_deploy.types import BuildOptions, PrecisionName

FLAGS = BuildOptions.flags()
#: A value of each option that is not its default.
VALUES: dict[str, Any] = {
    "workspace_mib": 512,
    "optimization_level": 0,
    "io": "fp16",
    "timing_cache": b"",
    "version_compatible": True,
    "hardware_compatible": True,
    "strip": True,
    "plugins": True,
}


def test_a_row_knows_only_options_that_are_there() -> None:
    assert VALUES.keys() == FLAGS.keys()
    for row in BACKENDS.values():
        assert row.options <= FLAGS.keys(), row.name


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", FLAGS)
def test_a_backend_takes_what_it_knows_and_refuses_the_rest(backend: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_gpus(monkeypatch, GPU)
    options = replace(BuildOptions(precision="fp16"), **{name: VALUES[name]})
    if name in BACKENDS[backend].options:
        check_options(options, backend)
        return
    with pytest.raises(BuildError, match=f"{BACKENDS[backend].title} has no {FLAGS[name].name}: ") as caught:
        check_options(options, backend)
    assert str(caught.value.hint).startswith(f"Leave out {FLAGS[name].name}, or choose --backend tensorrt")


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_defaults_are_for_every_backend(backend: str) -> None:
    check_options(BuildOptions(precision="int8", batch=(1, 2, 4), threads=3, device=1, mixed=True), backend)


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_weights_are_left_out_on_a_gpu_alone(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_gpus(monkeypatch)
    with pytest.raises(BuildError, match="leaves weights out only on a machine with an NVIDIA GPU, and there is none here") as caught:
        check_options(BuildOptions(strip=True), backend)
    assert caught.value.what.startswith(f"--strip: {BACKENDS[backend].title} ")


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
@pytest.mark.parametrize("precision", ["fp16", "int8", "fp8"])
def test_fp16_ends_need_an_engine_that_computes_in_less_than_fp32(
    backend: str, precision: PrecisionName, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_gpus(monkeypatch)
    check_options(BuildOptions(precision=precision, io="fp16"), backend)
    with pytest.raises(BuildError) as caught:
        check_options(BuildOptions(io="fp16"), backend)
    assert caught.value.what.startswith("--io fp16 and --fp32 cannot be combined: ")
    assert caught.value.hint == "Add --fp16, --int8 or --fp8, or leave --io out."


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_fp8_is_refused_on_a_cpu(backend: str) -> None:
    with pytest.raises(BuildError) as caught:
        check_options(BuildOptions(precision="fp8"), backend)
    assert caught.value.what == f"{BACKENDS[backend].title} has no FP8: that needs an NVIDIA GPU of compute capability 8.9 or later."
    assert caught.value.hint == "Build with --int8, or choose --backend tensorrt or tensorrt-rtx."


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
@pytest.mark.parametrize(
    ("capability", "takes"), [("7.5", False), ("8.6", False), ("8.9", True), ("9.0", True), ("10.0", True), ("12.0", True)]
)
def test_fp8_is_refused_on_older_gpus(backend: str, capability: str, takes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    set_gpus(monkeypatch, replace(GPU, compute_capability="9.0"), replace(GPU, index=1, compute_capability=capability))
    options = BuildOptions(precision="fp8", device=1)
    assert has_fp8(capability) is takes
    if takes:
        check_options(options, backend)
        return
    with pytest.raises(BuildError) as caught:
        check_options(options, backend)
    assert caught.value.what == f"FP8 needs a GPU of compute capability 8.9 or later; GPU 1 is NVIDIA Fake ({capability})."


def test_every_unsupported_option_is_named_and_the_hint_names_backends_that_know_them_all() -> None:
    both = BuildOptions(workspace_mib=64, optimization_level=3)
    with pytest.raises(BuildError) as caught:
        check_options(both, "openvino")
    assert caught.value.what == "OpenVINO has no --workspace, --optimization-level: these are options of a GPU builder."
    assert caught.value.hint == "Leave out --workspace, --optimization-level, or choose --backend tensorrt or tensorrt-rtx."
    with pytest.raises(BuildError) as caught:
        check_options(replace(both, plugins=True), "onnxruntime")
    assert caught.value.hint == "Leave out --workspace, --optimization-level, --plugins, or choose --backend tensorrt."
    with pytest.raises(BuildError, match=r"TensorRT-RTX has no --plugins: it keeps no timings.*compute capability 8\.0, 8\.6, 8\.9, 12\.0"):
        check_options(replace(both, plugins=True), "tensorrt-rtx")


def test_a_build_checks_its_options_first() -> None:
    with pytest.raises(BuildError, match="TensorRT-RTX has no --timing-cache"):
        build(tiny_model(), tiny_spec(), "tensorrt-rtx", BuildOptions(timing_cache=b""))
