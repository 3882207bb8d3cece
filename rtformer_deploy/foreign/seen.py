"""What a trial run showed: every tensor's type and shape, from ONNX Runtime's own profile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir

from ..errors import ModelError
from ..files import RECORD_BYTES, read_text, size_of_file
from ..formats.documents import parse_json
from .ends import BATCH

#: A dimension that was seen: a number, BATCH if it is the batch's, None if it is not the same for every picture.
Dim = int | str | None


@dataclass(frozen=True, slots=True)
class Seen:
    """A tensor's type, by onnx_ir's name, and its shape."""

    dtype: str
    shape: tuple[Dim, ...]


@dataclass(frozen=True, slots=True)
class Observed:
    """What the run showed of the file with this hash (see `file_sha256`): every tensor that a node gave, and which batch it takes.

    `convert`: the model still gives the same in a newer opset; see `graph.clean`.
    """

    sha256: str
    batch: int | str
    convert: bool = True
    tensors: Mapping[str, Seen] = field(default_factory=dict)


def read_profile(profile: Path) -> list[dict[str, Any]]:
    """The events of ONNX Runtime's profile; none if a loop made it too long to read."""
    if size_of_file(profile, ModelError) > RECORD_BYTES:
        return []
    events: list[dict[str, Any]] = parse_json(read_text(profile, ModelError, "a profile", RECORD_BYTES), RECORD_BYTES)
    return events


def tensors_in(events: Sequence[Mapping[str, Any]], model: ir.Model, runs: int) -> dict[str, Seen]:
    """The tensors of the main graph, from the shapes in a profile of `runs` runs; one that broke off may follow."""
    told: dict[str, list[Any]] = {}
    for event in sorted((event for event in events if event.get("cat") == "Node"), key=lambda event: event["ts"]):
        if event["name"].endswith("_kernel_time"):
            told.setdefault(event["name"].removesuffix("_kernel_time"), []).append(event["args"].get("output_type_shape", []))
    tensors = {}
    for node in model.graph:
        outputs = [output for output in node.outputs if output.name]
        for index, output in enumerate(outputs):
            shown = [run[index] for run in told.get(node.name or "", [])[:runs] if len(run) == len(outputs)]
            pairs = [(_TYPES.get(kind, ""), tuple(shape)) for each in shown for kind, shape in each.items()]
            if len(pairs) == runs and all(kind for kind, _ in pairs):
                tensors[str(output.name)] = seen_in(pairs)
    return tensors


def seen_in(runs: Sequence[tuple[str, tuple[int, ...]]]) -> Seen:
    """Types and shapes of one tensor in every run -> what it is. The third run, if there is one, has a batch of two."""
    kind, first = runs[0]
    if any(len(shape) != len(first) for _, shape in runs):
        return Seen(kind, ())
    dims: list[Dim] = [int(size) if len({shape[axis] for _, shape in runs}) == 1 else None for axis, size in enumerate(first)]
    if len(runs) == 3 and first and first[0] == runs[1][1][0] == 1 and runs[2][1][0] == 2:
        dims[0] = BATCH
    return Seen(kind, tuple(dims))


_TYPES = {
    "float": "FLOAT", "float16": "FLOAT16", "double": "DOUBLE", "bfloat16": "BFLOAT16", "bool": "BOOL", "int8": "INT8", "uint8": "UINT8",
    "int16": "INT16", "uint16": "UINT16", "int32": "INT32", "uint32": "UINT32", "int64": "INT64", "uint64": "UINT64",
}  # fmt: skip
