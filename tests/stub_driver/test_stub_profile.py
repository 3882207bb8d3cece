"""`profile` of a TensorRT plan: a fake TensorRT's profiler, over real cuda.core."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from fake_tensorrt import Context
from numpy.typing import NDArray
from tensorrt_lab import TensorRTLab
from tensorrt_plans import half_ends, make_engine

from rtformer_deploy.backends import layer_times
from rtformer_deploy.backends.tensorrt.library import TrtLibrary
from rtformer_deploy.errors import EngineError


def give_profiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake TensorRT's contexts tell a profiler of two layers in every run; the second counts the runs."""
    execute = Context.execute_async_v3

    def profiled(context: Any, stream: int) -> bool:
        done = execute(context, stream)
        if context.profiler is not None:
            assert context.profiler.initialised
            context.runs = getattr(context, "runs", 0) + 1
            context.profiler.report_layer_time("first", 0.5)
            context.profiler.report_layer_time("second", 1.0 * context.runs)
        return done

    monkeypatch.setattr(Context, "profiler", None, raising=False)
    monkeypatch.setattr(Context, "execute_async_v3", profiled)


class IProfiler:
    """As TensorRT's: `report_layer_time` of an object whose base was not initialised must not be called."""

    def __init__(self) -> None:
        self.initialised = True


def test_tensorrt_tells_its_profiler(machine: TensorRTLab, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = [{"Name": "x", "Format/Datatype": "Half"}]
    machine.layers_with_context = [{"Name": "first", "LayerType": "CaskConvolution", "Inputs": inputs}]
    give_profiler(monkeypatch)
    module = machine.module()
    module.IProfiler = IProfiler
    monkeypatch.setattr("rtformer_deploy.backends.tensorrt.plan.load_library", lambda *_: TrtLibrary(module, "tensorrt", False))
    first, second = layer_times(make_engine(), np.zeros((1, 3, 64, 96), np.float32), 3)
    assert (first.name, first.kind, first.precision, first.runs_ms) == ("first", "CaskConvolution", "fp16", (0.5,) * 3)
    assert (second.name, second.kind, second.precision, second.runs_ms) == ("second", "", "", (1.0, 2.0, 3.0))
    assert machine.captured() == 0
    assert machine.count("TensorRT: destroy context") == 1


def test_a_profiled_engine_with_fp16_ends_reads_fp16(machine: TensorRTLab, monkeypatch: pytest.MonkeyPatch) -> None:
    give_profiler(monkeypatch)
    module = machine.module()
    module.IProfiler = IProfiler
    monkeypatch.setattr("rtformer_deploy.backends.tensorrt.plan.load_library", lambda *_: TrtLibrary(module, "tensorrt", False))
    machine.io = {"input": "HALF", "logits": "HALF"}
    seen: list[Any] = []
    computed = machine.network

    def watched(images: NDArray[np.float32]) -> NDArray[Any]:
        seen.append(images.copy())
        return computed(images)

    machine.network = watched
    engine, images = make_engine(), np.full((1, 3, 64, 96), 1.5, np.float16)
    assert len(layer_times(dataclasses.replace(engine, info=half_ends(engine.info)), images, 1)) == 2
    np.testing.assert_array_equal(seen[-1], images)


def test_a_tensorrt_without_a_profiler_says_so(machine: TensorRTLab) -> None:
    with pytest.raises(EngineError, match="no profiler"):
        layer_times(make_engine(), np.zeros((1, 3, 64, 96), np.float32), 2)
    assert machine.count("TensorRT: destroy context") == 1
