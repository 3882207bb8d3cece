"""A GPU that NVIDIA does not list for TensorRT-RTX: what the library says of it, and `doctor`."""

from __future__ import annotations

import dataclasses

import pytest
from tensorrt_plans import GPU

from rtformer_deploy.backends.tensorrt import rtx_trial
from rtformer_deploy.commands import doctor
from rtformer_deploy.commands.checks import Answer

HOPPER = dataclasses.replace(GPU, name="NVIDIA H100", compute_capability="9.0")


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
