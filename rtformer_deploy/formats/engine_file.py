"""`engine.plan` and `engine.plan.json`: the builder's bytes, and a sidecar that describes them."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from ..errors import EngineError, shorten
from ..files import PLAN_BYTES, read_bytes, read_text, sha256, write_atomic, write_together
from ..types import Engine, EngineInfo, PrecisionFound
from .conversion import VERSION, convert_tolerant
from .documents import JSON_BYTES, DocumentError, parse_json
from .engine_info import check_info
from .preprocessing import needed_version, written

#: The newest version of the sidecar. Version 3 has no FP16 inputs and logits, version 2 no `refit` and no FP8 either, version 1 no
#: `resize_corners` and `scale` in its spec either.
NEWEST = 4
#: What is kept of a sidecar's notes, which commands print: a builder's line is shorter.
_MOST_NOTES, _NOTE_LENGTH = 20, 500


#: What names of plans end in.
PLAN_SUFFIXES = frozenset({".plan", ".engine", ".trt"})


def sidecar(path: Path) -> Path:
    """The path of the EngineInfo that belongs to a plan."""
    return path.with_name(path.name + ".json")


def runtime_cache(path: Path) -> Path:
    """The path of the cache of compiled kernels that TensorRT-RTX keeps for a plan."""
    return path.with_name(path.name + ".cache")


def save_engine(engine: Engine, path: Path) -> None:
    """Writes the plan and its sidecar, which holds the plan's hash: both or, if one cannot be written, neither."""
    write_together([(sidecar(path), info_bytes(engine.info)), (path, engine.plan)])


def save_info(info: EngineInfo, path: Path) -> None:
    """Writes the EngineInfo beside a plan."""
    write_atomic(sidecar(path), info_bytes(info))


def save_precision(precision: PrecisionFound, path: Path) -> None:
    """Writes the precision of a plan's layers into its sidecar; everything else in it stays. Raises EngineError, OutputError."""
    data = _read(path)
    earlier = data.get("precision")
    found = dataclasses.asdict(precision)
    write_atomic(sidecar(path), _json({**data, "precision": {**earlier, **found} if isinstance(earlier, dict) else found}))


def info_bytes(info: EngineInfo) -> bytes:
    """An EngineInfo as the bytes of its sidecar."""
    values = info.to_json()
    spec = written(info.spec, values["spec"])
    for key in ("refit", "candidates"):  # earlier versions do not know them
        if not values[key]:
            del values[key]
    return _json({VERSION: _version(info), **values, "spec": spec})


def _version(info: EngineInfo) -> int:
    """The oldest version of the sidecar that can say all of this."""
    if info.io == "fp16":
        return 4
    if info.refit is not None or info.precision.asked == "fp8":
        return 3
    return needed_version(info.spec, 2)


def _json(data: dict[str, Any]) -> bytes:
    return json.dumps(data, indent=1).encode() + b"\n"


def load_info(path: Path) -> EngineInfo:
    """The EngineInfo beside a plan. If a newer version wrote it, a note in it says so. Raises EngineError if it is missing or damaged."""
    return _info(_read(path), path)


def parse_info(data: bytes, path: Path) -> EngineInfo:
    """The bytes of a sidecar -> its EngineInfo; `path` is the plan's name in messages. Raises EngineError if it is damaged."""
    try:
        return _info(parse_json(data), path)
    except DocumentError as error:
        raise _unreadable(path, error) from error


def _info(data: object, path: Path) -> EngineInfo:
    try:
        info, note = convert_tolerant(data, EngineInfo, NEWEST)
        check_info(info)
    except DocumentError as error:
        raise _unreadable(path, error) from error
    notes = [shorten(each, _NOTE_LENGTH) for each in info.notes[:_MOST_NOTES]]
    if note is not None:
        notes.append(f"{sidecar(path).name} is of {note}.")
    return dataclasses.replace(info, notes=tuple(notes))


def _read(path: Path) -> dict[str, Any]:
    beside = sidecar(path)
    if not os.path.isfile(beside):
        raise EngineError(
            f"{path} has no {beside.name} beside it, so nobody can say what it is.",
            "Copy both files together, or build it again: rtformer-deploy build-engine.",
        )
    try:
        data = parse_json(read_text(beside, EngineError, "a sidecar", JSON_BYTES))
        if not isinstance(data, dict):
            raise DocumentError("it is not a JSON object")
    except DocumentError as error:
        raise _unreadable(path, error) from error
    return data


def _unreadable(path: Path, error: DocumentError) -> EngineError:
    return EngineError(f"{sidecar(path)} cannot be read: {error}.", "Build the engine again: rtformer-deploy build-engine.")


def load_engine(path: Path) -> Engine:
    """A plan and its EngineInfo. Raises EngineError if a file is missing, or the plan's bytes are not those that were built."""
    plan = read_bytes(path, EngineError, "an engine plan", PLAN_BYTES)
    info = load_info(path)
    if sha256(plan) != info.plan_sha256:
        raise EngineError(
            f"{path} is not the plan that {sidecar(path).name} describes: its SHA-256 differs, so it was changed, cut short or mixed up.",
            "Copy both files again, or build it again: rtformer-deploy build-engine.",
        )
    return Engine(plan, info, path=path)
