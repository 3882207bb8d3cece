"""A GPU that NVIDIA does not list for TensorRT-RTX: opening tries it, and says in one line what it refused."""

from __future__ import annotations

import dataclasses

import pytest
from helpers import frames
from tensorrt_lab import SIZES, TensorRTLab, check
from tensorrt_plans import GPU, make_engine, set_gpus

from rtformer_deploy.backends import open_engine
from rtformer_deploy.errors import EngineError
from rtformer_deploy.types import Engine

HOPPER = dataclasses.replace(GPU, name="NVIDIA H100", compute_capability="9.0")


@pytest.fixture(autouse=True)
def rtx(machine: TensorRTLab, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.rtx = True
    set_gpus(monkeypatch, HOPPER)


def hopper_engine() -> Engine:
    return make_engine(backend="tensorrt-rtx", builder_version="tensorrt-rtx 10.3.0", gpu="NVIDIA H100 (9.0)")


def test_it_is_tried_and_not_assumed(machine: TensorRTLab) -> None:
    with open_engine(hopper_engine()) as runner:
        check(runner, frames(*SIZES))


@pytest.mark.parametrize("refuses", ["validity", "opens", "runs", "contexts_left"])
def test_opening_says_it_in_one_line(machine: TensorRTLab, refuses: str) -> None:
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


def test_a_listed_gpu_keeps_the_librarys_own_error(machine: TensorRTLab, monkeypatch: pytest.MonkeyPatch) -> None:
    set_gpus(monkeypatch, GPU)
    machine.opens = False
    with pytest.raises(EngineError, match=r"cannot open this plan:\n.*Serialization assertion failed"):
        open_engine(dataclasses.replace(hopper_engine(), info=dataclasses.replace(hopper_engine().info, gpu=str(GPU))))
