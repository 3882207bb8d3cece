"""A ModelSpec as JSON with a version: the stamp inside an ONNX model, or a file of its own beside what uses it."""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import ModelError
from ..files import read_text
from ..types import ModelSpec
from .conversion import VERSION, convert_tolerant
from .documents import JSON_BYTES, DocumentError, parse_json
from .model_spec import check_spec
from .preprocessing import needed_version, written

#: The newest version. Version 1 has no `resize_corners` and `scale`.
_VERSION = 2


def spec_text(spec: ModelSpec) -> str:
    """A ModelSpec as JSON."""
    return json.dumps({VERSION: needed_version(spec, _VERSION), **written(spec, spec.to_json())}, separators=(",", ":"))


def parse_spec(text: str) -> tuple[ModelSpec, str | None]:
    """JSON -> its ModelSpec, and a note if it says more than this version reads. Raises DocumentError."""
    spec, note = convert_tolerant(parse_json(text), ModelSpec, _VERSION)
    check_spec(spec)
    return spec, note


def load_spec(path: Path) -> ModelSpec:
    """A file that holds a ModelSpec -> it. Raises ModelError."""
    try:
        return parse_spec(read_text(path, ModelError, "a model's description", JSON_BYTES))[0]
    except DocumentError as error:
        raise ModelError(f"{path} cannot be read: {error}.") from error
