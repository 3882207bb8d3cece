"""Writes ranges as JSON that diffs well, reads them, and checks that they belong to a model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ..content import content_dir
from ..errors import CalibrationError
from ..files import DOCUMENT_BYTES, read_bytes, sha256, write_atomic
from ..types import ModelSpec, Ranges

_AGAIN = "Measure them again: rtformer-deploy calibrate."


def to_bytes(ranges: Ranges) -> bytes:
    """Ranges as JSON bytes: one tensor per line, sorted by name."""
    return _document(ranges.to_json())


def save_ranges(ranges: Ranges, path: Path) -> None:
    """Writes ranges, whole or not at all."""
    write_atomic(path, to_bytes(ranges))


def load_ranges(path: Path) -> Ranges:
    """A ranges file. Raises CalibrationError if it is missing, damaged, or holds a value that is not a range."""
    try:
        ranges = Ranges.from_json(json.loads(read_bytes(path, CalibrationError, "a ranges file", DOCUMENT_BYTES)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CalibrationError(f"{path} is not a ranges file: {error}.", _AGAIN) from error
    for name, value in ranges.amax.items():
        if not math.isfinite(value) or value < 0:
            raise CalibrationError(f"{path}: the range of {name} is {value}.", _AGAIN)
    return ranges


def ranges_hash(ranges: Ranges) -> str:
    """The SHA-256 of ranges. It uses the field names of earlier versions, so that their files keep their hash."""
    data = ranges.to_json()
    data["model_sha256"] = data.pop("weights_sha256")
    return sha256(_document(data))


def check_ranges(ranges: Ranges, name: str, weights_sha256: str) -> None:
    """Raises CalibrationError if the ranges were not measured with the weights and configuration of the model `name`."""
    if ranges.weights_sha256 != weights_sha256:
        raise CalibrationError(
            f"These ranges belong to other weights or another configuration ({ranges.model}, {ranges.weights_sha256[:12]}); "
            f"the model is {name}, {weights_sha256[:12]}.",
            _AGAIN,
        )


def shipped_ranges(spec: ModelSpec) -> Ranges | None:
    """The ranges that come with the project for a recipe; None if there are none, or they were measured with other weights."""
    path = content_dir("calibration") / f"{spec.name}.json"
    if not path.is_file():
        return None
    ranges = load_ranges(path)
    return ranges if spec.sha256 == ranges.weights_sha256 else None


def _document(data: dict[str, Any]) -> bytes:
    return json.dumps(data, indent=1, sort_keys=True).encode() + b"\n"
