"""An ONNX Runtime engine to the time of its layers: ONNX Runtime's own profile of several runs, read from a temporary file."""

from __future__ import annotations

import bisect
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import EngineError
from ...files import temporary_folder
from ...formats.model_file import parse_model
from ...runtime.layer_times import WARM_UP, LayerTime, run_once
from ...types import Engine
from .run import ONNXRuntimeSession, open_model, session_options

_PRECISIONS = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16", "uint8": "int8"}
_FUSION = re.compile(r"(/\w*Fusion\w*/?)+$")  # the suffix that each fusion adds to a node's name
_BLOCKED = "_nchwc"  # the suffix of a layer that works on blocks of channels


def layer_times(engine: Engine, images: NDArray[np.floating], rounds: int, device: int, threads: int | None) -> list[LayerTime]:
    """See `backends.layer_times`; ONNX Runtime counts in whole microseconds. `device` is ignored on a CPU."""
    options = session_options(threads)
    options.enable_profiling = True
    with temporary_folder() as folder:
        options.profile_file_prefix = str(folder / "profile")
        model = open_model(engine, options, device)
        session = ONNXRuntimeSession(model, engine.info)
        try:
            session.input[: len(images)] = images
            for _ in range(WARM_UP + rounds):
                run_once(session, len(images))
        finally:
            session.close()
            profile_path = Path(model.end_profiling())  # before the folder goes
        events: list[dict[str, Any]] = json.loads(profile_path.read_text(encoding="utf-8"))
    nodes = _nodes(engine.plan)
    return [_known(layer, nodes) for layer in read_events(events, rounds)]


def _nodes(plan: bytes) -> dict[str, str]:
    """A plan -> its nodes by the names that a layer can have: a node's own, or that of a tensor which it makes."""
    nodes = list(parse_model(plan).graph.all_nodes())
    return {str(output.name): str(node.name) for node in nodes for output in node.outputs} | {
        str(node.name): str(node.name) for node in nodes
    }


def _known(layer: LayerTime, nodes: Mapping[str, str]) -> LayerTime:
    """A layer under the name of its node, if it has one."""
    node = nodes.get(layer.name, "")
    return replace(layer, name=node or layer.name, node=node)


def read_events(events: Sequence[Mapping[str, Any]], rounds: int) -> list[LayerTime]:
    """The events of a profile -> its layers, with their times in the last `rounds` runs. Raises EngineError if runs are missing.

    A layer that runs more than once in a run, as in a loop's body, counts with its total time.
    """
    starts = sorted(event["ts"] for event in events if event.get("name") == "model_run")[-rounds:]
    if len(starts) < rounds:
        raise EngineError(f"ONNX Runtime's profile tells of {len(starts)} runs instead of {rounds}; it keeps a million events at most.")
    times: dict[tuple[str, str], list[float]] = {}
    notes: dict[tuple[str, str], Mapping[str, Any]] = {}
    for event in sorted((event for event in events if event.get("cat") == "Node"), key=lambda event: event["ts"]):
        run = bisect.bisect_right(starts, event["ts"]) - 1
        if run < 0 or not event["name"].endswith("_kernel_time"):
            continue
        key = str(event["name"]).removesuffix("_kernel_time"), str(event["args"].get("node_index"))
        notes.setdefault(key, event["args"])
        times.setdefault(key, [0.0] * rounds)[run] += event["dur"] / 1000
    return [_layer(key[0], notes[key], times[key]) for key in times]


def _layer(name: str, notes: Mapping[str, Any], times: Sequence[float]) -> LayerTime:
    input_type = next(iter(notes.get("input_type_shape") or [{}]))
    kind = next(iter(input_type), "")
    kernel = "nchwc" if name.endswith(_BLOCKED) else ""
    return LayerTime(
        _FUSION.sub("", name.removesuffix(_BLOCKED)), str(notes.get("op_name", "")), kernel, _PRECISIONS.get(kind, kind), tuple(times)
    )
