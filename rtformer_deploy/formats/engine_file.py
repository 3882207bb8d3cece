"""`engine.plan` and `engine.plan.json`: the builder's bytes, and a sidecar that describes them."""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import EngineError
from ..files import PLAN_BYTES, read_bytes, read_text, sha256, write_atomic, write_together
from ..types import Engine, EngineInfo


def sidecar(path: Path) -> Path:
    """The path of the EngineInfo that belongs to a plan."""
    return path.with_name(path.name + ".json")


def runtime_cache(path: Path) -> Path:
    """The path of the cache of compiled kernels that TensorRT-RTX keeps for a plan."""
    return path.with_name(path.name + ".cache")


def save_engine(engine: Engine, path: Path) -> None:
    """Writes the plan and its sidecar, which holds the plan's hash: both or, if one cannot be written, neither."""
    write_together([(sidecar(path), _document(engine.info)), (path, engine.plan)])


def save_info(info: EngineInfo, path: Path) -> None:
    """Writes the EngineInfo beside a plan."""
    write_atomic(sidecar(path), _document(info))


def _document(info: EngineInfo) -> bytes:
    return json.dumps(info.to_json(), indent=1).encode() + b"\n"


def load_info(path: Path) -> EngineInfo:
    """The EngineInfo beside a plan. Raises EngineError if it is missing or damaged."""
    beside = sidecar(path)
    if not beside.is_file():
        raise EngineError(
            f"{path} has no {beside.name} beside it, so nobody can say what it is.",
            "Copy both files together, or build it again: rtformer-deploy build-engine.",
        )
    try:
        return EngineInfo.from_json(json.loads(read_text(beside, EngineError, "a sidecar")))
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(f"{beside} cannot be read: {error}.", "Build the engine again: rtformer-deploy build-engine.") from error


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
