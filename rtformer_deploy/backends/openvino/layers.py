"""An OpenVINO engine to the time of its layers: the model compiled with PERF_COUNT, its counters read after every run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.layer_times import WARM_UP, LayerTime, run_once
from ...types import Engine
from .plan import compile_plan, note, read_plan
from .run import OpenVINOSession

_PRECISIONS = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "i8": "int8", "u8": "int8", "i32": "int32", "i64": "int64"}
_EXECUTED = "EXECUTED"
_FUSED_BIAS = "/WithoutBiases"
#: The kinds of layers that only hold or pass values.
_NO_WORK = frozenset({"Const", "Input", "Output"})


def layer_times(engine: Engine, images: NDArray[np.floating], rounds: int, device: int, threads: int | None) -> list[LayerTime]:
    """See `backends.layer_times`; OpenVINO counts in whole microseconds. `device` is ignored on a CPU."""
    compiled = compile_plan(engine.plan, threads, profiling=True)
    nodes = owners(compiled.get_runtime_model(), {layer.get_friendly_name() for layer in read_plan(engine.plan).get_ops()})
    session = OpenVINOSession(compiled, engine.info)
    session.input[: len(images)] = images
    runs: list[list[Any]] = []
    for number in range(WARM_UP + rounds):
        run_once(session, len(images))
        if number >= WARM_UP:
            runs.append(session.profiling_info())
    session.close()
    return [_layer(infos, nodes) for infos in zip(*runs, strict=True) if any(info.status.name == _EXECUTED for info in infos)]


def owners(executed: Any, known: set[str]) -> dict[str, str]:
    """The layers of an execution graph -> the model's node that each computes or was made for; `known` are the names of the model's nodes.

    A layer that OpenVINO made itself belongs to a node that is fused into it, else to the first node that reads from it, else to the one
    that it reads from.
    """
    layers = executed.get_ops()
    found: dict[str, str] = {}
    for layer in layers:
        names = (layer.get_friendly_name().removesuffix(_FUSED_BIAS), *note(layer, "originalLayersNames").split(","))
        node = next((name for name in names if name in known), None)
        if node is not None and note(layer, "layerType") not in _NO_WORK:
            found[layer.get_friendly_name()] = node
    for layer in reversed(layers):  # in graph order, so what reads a layer is known before it
        readers = (target.get_node() for output in layer.outputs() for target in output.get_target_inputs())
        _inherit(layer, readers, found)
    for layer in layers:
        _inherit(layer, (value.get_node() for value in layer.input_values()), found)
    return found


def _inherit(layer: Any, neighbours: Iterable[Any], found: dict[str, str]) -> None:
    name = layer.get_friendly_name()
    node = (
        None if name in found else next((found[each.get_friendly_name()] for each in neighbours if each.get_friendly_name() in found), None)
    )
    if node is not None and note(layer, "layerType") not in _NO_WORK:
        found[name] = node


def _layer(infos: tuple[Any, ...], nodes: Mapping[str, str]) -> LayerTime:
    """The LayerTime of one layer, from its ProfilingInfo in every run."""
    first = infos[0]
    kernel, precision = split_kernel(str(first.exec_type))
    times = tuple(1000 * info.real_time.total_seconds() for info in infos)
    name = str(first.node_name)
    return LayerTime(name.removesuffix(_FUSED_BIAS), str(first.node_type), kernel, precision, times, nodes.get(name, ""))


def split_kernel(exec_type: str) -> tuple[str, str]:
    """Splits OpenVINO's kernel name, such as "jit_avx512_f32", into the name without its last part and that part as a precision."""
    kernel, _, suffix = exec_type.rpartition("_")
    return "" if kernel in ("unknown", "undef") else kernel, _PRECISIONS.get(suffix.lower(), suffix.lower())
