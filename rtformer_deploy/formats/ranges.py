"""Writes ranges as JSON that diffs well, reads them, and checks that they belong to a model.

version 2    what `Ranges` holds
version 1    has no `version`, `mean`, `std` and `resize`, and may call `weights_sha256` by an older name, `model_sha256`
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from ..content import content_dir
from ..errors import CalibrationError
from ..files import DOCUMENT_BYTES, read_bytes, sha256, write_atomic
from ..types import IMAGENET_MEAN, IMAGENET_STD, ModelSpec, Ranges, Resize, Say
from .values import choice, triple

VERSION = 2
#: What a file of version 1 does not say, and nearly every model used then.
_ASSUMED: Mapping[str, Any] = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "resize": "stretch"}
_RESIZES: tuple[Resize, ...] = ("stretch", "letterbox")
_AGAIN = "Measure them again: rtformer-deploy calibrate."


class _Prepared(Protocol):
    """What says how images are prepared: Ranges, a ModelSpec, a Recipe."""

    @property
    def mean(self) -> tuple[float, float, float]: ...
    @property
    def std(self) -> tuple[float, float, float]: ...
    @property
    def resize(self) -> Resize: ...


def to_bytes(ranges: Ranges) -> bytes:
    """Ranges as JSON bytes: one tensor per line, sorted by name."""
    return _document({"version": VERSION, **ranges.to_json()})


def save_ranges(ranges: Ranges, path: Path) -> None:
    """Writes ranges, whole or not at all."""
    write_atomic(path, to_bytes(ranges))


def load_ranges(path: Path, say: Say = print) -> Ranges:
    """A ranges file -> Ranges. `say` gets one line if the file is of version 1, about the preprocessing that is assumed.

    Raises CalibrationError if it is missing, damaged, of a newer version, or holds a value that is not a range.
    """
    data = read_bytes(path, CalibrationError, "a ranges file", DOCUMENT_BYTES)
    try:
        document = json.loads(data)
        version = _version(document)
        if version <= VERSION:
            ranges = _ranges(document if version > 1 else {**document, **_ASSUMED})
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise CalibrationError(f"{path} is not a ranges file: {_why(error)}.", _AGAIN) from error
    if version > VERSION:
        raise CalibrationError(
            f"{path} is a ranges file of version {version}; this rtformer-deploy reads versions 1 to {VERSION}.",
            "Update rtformer-deploy, or measure them again: rtformer-deploy calibrate.",
        )
    for name, value in ranges.amax.items():
        if not math.isfinite(value) or value < 0:
            raise CalibrationError(f"{path}: the range of {name} is {value}.", _AGAIN)
    if version == 1:
        say(f"{path} is of version 1, which does not record the preprocessing; {preprocessing(ranges)} are assumed.")
    return ranges


def ranges_hash(ranges: Ranges) -> str:
    """The SHA-256 of ranges, by which sidecars and recipes name them.

    It is that of the file in version 1, so that ranges of that version keep their hash. The preprocessing is part of it only if it is
    not the one that version 1 assumes.
    """
    data = ranges.to_json()
    data["model_sha256"] = data.pop("weights_sha256")
    if all(data[key] == value for key, value in _ASSUMED.items()):
        for key in _ASSUMED:
            del data[key]
    return sha256(_document(data))


def check_ranges(ranges: Ranges, spec: ModelSpec, weights_sha256: str) -> None:
    """Raises CalibrationError if ranges were not measured with a model's weights, configuration and preprocessing.

    `weights_sha256` is the model's, as `model_file.weights_sha256` gives it.
    """
    if ranges.weights_sha256 != weights_sha256:
        raise CalibrationError(
            f"These ranges belong to other weights or another configuration ({ranges.model}, {ranges.weights_sha256[:12]}); "
            f"the model is {spec.name}, {weights_sha256[:12]}.",
            _AGAIN if spec.sha256 else f"{_AGAIN} Ranges of a model from elsewhere in a file of version 1 no longer fit.",
        )
    if (ranges.mean, ranges.std, ranges.resize) != (spec.mean, spec.std, spec.resize):
        raise CalibrationError(
            f"These ranges were measured with {preprocessing(ranges)}; the model {spec.name} takes {preprocessing(spec)}.", _AGAIN
        )


def preprocessing(source: _Prepared) -> str:
    """How images are prepared, for a message."""
    mean, std = (",".join(map(str, values)) for values in (source.mean, source.std))
    return f"mean {mean}, std {std} and resize {source.resize}"


def shipped_ranges(spec: ModelSpec) -> Ranges | None:
    """The ranges that come with the project for a recipe; None if there are none, or they were measured with other weights."""
    path = content_dir("calibration") / f"{spec.name}.json"
    if not path.is_file():
        return None
    ranges = load_ranges(path)
    return ranges if spec.sha256 == ranges.weights_sha256 else None


def _version(document: Any) -> int:
    """A document's version; 1 if it does not say. Raises ValueError."""
    if not isinstance(document, dict):
        raise ValueError("it is no JSON object")
    version = document.get("version", 1)
    if type(version) is not int or version < 1:
        raise ValueError(f"its version is {version!r}")
    return version


def _ranges(data: Mapping[str, Any]) -> Ranges:
    mean, std = triple(data["mean"]), triple(data["std"])
    if not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
        raise ValueError(f"its mean is {list(mean)} and its std {list(std)}")
    return Ranges(
        amax={str(name): float(value) for name, value in data["amax"].items()},
        method=str(data["method"]),
        images=int(data["images"]),
        weights_sha256=str(data["weights_sha256"] if "weights_sha256" in data else data["model_sha256"]),
        model=str(data["model"]),
        mean=mean,
        std=std,
        resize=choice(data["resize"], _RESIZES),
    )


def _why(error: Exception) -> str:
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)


def _document(data: dict[str, Any]) -> bytes:
    return json.dumps(data, indent=1, sort_keys=True).encode() + b"\n"
