"""A GPU that NVIDIA does not list for TensorRT-RTX: opening tries it, and says in one line what it refused."""

from __future__ import annotations

import dataclasses

import pytest
from helpers import frames
from lane_checks import SIZES, check
from null_engines import GPU, install, make_engine, set_gpus
from null_tensorrt import NullTensorRT

from rtformer_deploy.backends import open_engine
from rtformer_deploy.backends.tensorrt import rtx_trial
from rtformer_deploy.commands import doctor
from rtformer_deploy.commands.checks import Answer
from rtformer_deploy.errors import EngineError
from rtformer_deploy.types import Engine

HOPPER = dataclasses.replace(GPU, name="NVIDIA H100", compute_capability="9.0")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> NullTensorRT:
    fake = install(monkeypatch)
    fake.rtx = True
    set_gpus(monkeypatch, HOPPER)
    return fake


def hopper_engine() -> Engine:
    return make_engine(backend="tensorrt-rtx", builder_version="tensorrt-rtx 10.3.0", gpu="NVIDIA H100 (9.0)")


def test_it_is_tried_and_not_assumed(machine: NullTensorRT) -> None:
    with open_engine(hopper_engine()) as runner:
        check(runner, frames(*SIZES))


@pytest.mark.parametrize("refuses", ["validity", "opens", "runs", "contexts_left"])
def test_opening_says_it_in_one_line(machine: NullTensorRT, refuses: str) -> None:
    value, words = {
        "validity": (("INVALID", 2), "it holds no code for this GPU's compute capability"),
        "opens": (False, "Serialization assertion failed"),
        "runs": (False, "the kernel went missing"),
        "contexts_left": (0, "TensorRT could not make an execution context"),
    }[refuses]
    setattr(machine, refuses, value)
    with pytest.raises(EngineError) as caught:
        open_engine(hopper_engine())
    told = caught.value
    assert told.what.startswith(
        "TensorRT-RTX is for compute capability 8.0, 8.6, 8.9, 12.0; NVIDIA H100 (9.0) is none of them, and here it"
    )
    assert words in told.what
    assert "\n" not in told.what
    assert told.hint == (
        "Standard TensorRT runs there: rtformer-deploy build-engine MODEL.onnx --backend tensorrt --fp16 --min 1 --opt 2 --max 3"
    )


def test_a_listed_gpu_keeps_the_librarys_own_error(machine: NullTensorRT, monkeypatch: pytest.MonkeyPatch) -> None:
    set_gpus(monkeypatch, GPU)
    machine.opens = False
    with pytest.raises(EngineError, match=r"cannot open this plan:\n.*Serialization assertion failed"):
        open_engine(dataclasses.replace(hopper_engine(), info=dataclasses.replace(hopper_engine().info, gpu=str(GPU))))


@pytest.mark.parametrize("gpu", [GPU, HOPPER])
def test_the_librarys_own_refusal_is_one_line(monkeypatch: pytest.MonkeyPatch, gpu: object) -> None:
    """Without a GPU TensorRT-RTX refuses every one of them, in its own words."""
    pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx")
    monkeypatch.setattr(rtx_trial, "make_current", lambda index: None)
    said = rtx_trial.refusal(gpu)  # type: ignore[arg-type]
    assert said is not None
    assert said.startswith("it ")
    assert "\n" not in said
    assert len(said) <= 300


@pytest.mark.parametrize(
    ("refusals", "state", "words"),
    [
        ({GPU: None}, "ok", "NVIDIA Fake (8.6): a small engine was built and opened"),
        ({GPU: None, HOPPER: "it builds no engine: sm 90"}, "missing", "NVIDIA H100 (9.0): it builds no engine: sm 90"),
        ({}, "missing", "there is no GPU to try it on"),
    ],
)
def test_doctor_says_it(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    refusals: dict[object, str | None],
    state: str,
    words: str,
) -> None:
    monkeypatch.setattr(rtx_trial, "gpus", lambda: tuple(refusals))
    monkeypatch.setattr(rtx_trial, "refusal", refusals.get)
    monkeypatch.setattr(doctor, "is_there", lambda module: True)
    doctor.print_rtx()
    printed = capsys.readouterr().out.strip()
    monkeypatch.setattr(doctor, "run_function", lambda trial, patience_s: Answer(True, printed))
    found = doctor._rtx(1)
    assert (found.group, found.state) == ("GPU", state)
    assert words in found.detail
    assert "\n" not in found.detail
    assert (found.fix is not None) == any(refusals.values())


def test_doctor_without_tensorrt_rtx_and_with_one_that_crashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "is_there", lambda module: False)
    assert doctor._rtx(1).state == "missing"
    monkeypatch.setattr(doctor, "is_there", lambda module: True)
    monkeypatch.setattr(doctor, "run_function", lambda trial, patience_s: Answer(False, "crashed with signal 11"))
    assert (doctor._rtx(1).state, doctor._rtx(1).detail) == ("broken", "crashed with signal 11")
