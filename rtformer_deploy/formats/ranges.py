"""Ranges to JSON that diffs well, and back; and whether they belong to a model."""

from __future__ import annotations

import json
import math
from pathlib import Path

from ..content import content_dir
from ..errors import CalibrationError
from ..files import DOCUMENT_BYTES, read_bytes, sha256, write_atomic
from ..types import ModelSpec, Ranges

_AGAIN = "Measure them again: rtformer-deploy calibrate."


def to_bytes(ranges: Ranges) -> bytes:
    """Ranges as JSON bytes: one tensor a line, sorted by name."""
    return json.dumps(ranges.to_json(), indent=1, sort_keys=True).encode() + b"\n"


def save_ranges(ranges: Ranges, path: Path) -> None:
    """Writes ranges, whole or not at all."""
    write_atomic(path, to_bytes(ranges))


def load_ranges(path: Path) -> Ranges:
    """A ranges file. Raises CalibrationError where it is missing, damaged, or holds what is no range."""
    try:
        ranges = Ranges.from_json(json.loads(read_bytes(path, CalibrationError, "a ranges file", DOCUMENT_BYTES)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CalibrationError(f"{path} is not a ranges file: {error}.", _AGAIN) from error
    for name, value in ranges.amax.items():
        if not math.isfinite(value) or value < 0:
            raise CalibrationError(f"{path}: the range of {name} is {value}.", _AGAIN)
    return ranges


def ranges_hash(ranges: Ranges) -> str:
    """The SHA-256 of what a ranges file holds."""
    return sha256(to_bytes(ranges))


def check_ranges(ranges: Ranges, spec: ModelSpec, model_sha256: str) -> None:
    """Raises CalibrationError where ranges were measured with other weights or another configuration."""
    wanted = spec.sha256 or model_sha256
    if ranges.model_sha256 != wanted:
        raise CalibrationError(
            f"These ranges belong to other weights or another configuration ({ranges.model}, {ranges.model_sha256[:12]}); "
            f"the model is {spec.name}, {wanted[:12]}.",
            _AGAIN,
        )


def shipped_ranges(spec: ModelSpec) -> Ranges | None:
    """The ranges that come with the project for a recipe; None where there are none, or they were measured with other weights."""
    path = content_dir("calibration") / f"{spec.name}.json"
    if not path.is_file():
        return None
    ranges = load_ranges(path)
    return ranges if spec.sha256 == ranges.model_sha256 else None
