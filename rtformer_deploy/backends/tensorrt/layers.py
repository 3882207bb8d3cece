"""A TensorRT or TensorRT-RTX plan to the time of its layers: an IProfiler on the execution context, without CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import EngineError
from ...lanes.engine import ExecutionContext
from ...lanes.engine_lane import EngineLane
from ...runtime.layer_times import WARM_UP, LayerTime, run_once
from ...types import Engine
from .found_precision import LayerFacts, layer_facts
from .plan import PlanContext
from .run import open_lanes


def layer_times(engine: Engine, images: NDArray[np.floating], rounds: int, device: int, threads: int | None) -> list[LayerTime]:
    """See `backends.layer_times`; TensorRT measures the GPU's time between layers. `threads` is ignored on a GPU.

    Raises EngineError if this TensorRT has no profiler, or if the profiler names no layers.
    """
    lane = open_lanes(engine, device, 1, graphs=False)[0]
    try:
        lane.input[: len(images)] = images
        runs, facts = _profiled(lane, len(images), rounds)
    finally:
        lane.close()
    names = dict.fromkeys(name for run in runs for name in run)
    if not names:
        raise EngineError("TensorRT's profiler was attached and told of no layers.")
    return [_layer(name, facts.get(name, LayerFacts()), runs) for name in names]


def _layer(name: str, facts: LayerFacts, runs: list[dict[str, float]]) -> LayerTime:
    times = tuple(run.get(name, 0.0) for run in runs)
    return LayerTime(name, facts.kind, "", facts.precision, times, facts.node)


def _profiled(lane: EngineLane, batch: int, rounds: int) -> tuple[list[dict[str, float]], dict[str, LayerFacts]]:
    """The measured runs, each as layer names with their ms, and the inspector's facts about the layers."""
    current: dict[str, float] = {}
    facts: dict[str, LayerFacts] = {}

    def report(name: str, ms: float) -> None:
        current[name] = current.get(name, 0.0) + ms

    def attach(lane_context: ExecutionContext) -> None:
        assert isinstance(lane_context, PlanContext), "lanes over a plan have its contexts"
        attach_profiler(lane_context.plan.library.module, lane_context.context, report)
        facts.update(_facts(lane_context))

    for _ in range(WARM_UP):
        run_once(lane, batch)
    lane.with_context(attach)
    runs = []
    for _ in range(rounds):
        run_once(lane, batch)
        runs.append(dict(current))
        current.clear()
    return runs, facts


def attach_profiler(trt: Any, context: Any, report: Callable[[str, float], None]) -> None:
    """Makes the context call `report` with each layer's name and ms in every run. Raises EngineError if this TensorRT cannot.

    https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/python-api/infer/Core/Profiler.html
    """
    if not hasattr(trt, "IProfiler") or not hasattr(context, "profiler"):
        raise EngineError("This TensorRT's Python package has no profiler, so it does not tell the time of layers.")

    class LayerProfiler(trt.IProfiler):  # type: ignore[misc]  # TensorRT is not imported where types are checked
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            report(layer_name, ms)

    context.profiler = LayerProfiler()


def _facts(lane_context: PlanContext) -> dict[str, LayerFacts]:
    inspector = lane_context.plan.engine.create_engine_inspector()
    inspector.execution_context = lane_context.context
    return layer_facts(inspector.get_engine_information(lane_context.plan.library.module.LayerInformationFormat.JSON))
