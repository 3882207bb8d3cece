"""Writes ranges as JSON that diffs well, reads them, and checks that they belong to a model.

version 3    what `Ranges` holds
version 2    has no `resize_corners` and `scale`
version 1    has also no `version`, `mean`, `std` and `resize`, and may call `weights_sha256` by an older name, `model_sha256`
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..content import content_dir
from ..errors import CalibrationError
from ..files import read_text, sha256, write_atomic
from ..types import IMAGENET_MEAN, IMAGENET_STD, ModelSpec, Ranges, Say
from .conversion import convert_known, split_version
from .documents import DocumentError, parse_json
from .preprocessing import ASSUMED, FIELDS, needed_version, prepared, preprocessing, written

VERSION = 3
#: The levels of eight bits on each side of zero.
LEVELS = 127
#: FP32's smallest normal number. Below it a scale loses its digits, and 1 / scale may be infinite.
SMALLEST_NORMAL = 2.0**-126
#: What a file of version 1 does not say, and nearly every model used then; version 2 says the first three.
_ASSUMED: Mapping[str, Any] = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "resize": "stretch", **ASSUMED}
#: Some fifty thousand tensors.
_MOST_BYTES = 4 * 2**20
_AGAIN = "Measure them again: rtformer-deploy calibrate."


def has_scale(amax: float) -> bool:
    """Whether a range is large enough for a scale. If not, the tensor counts as zero."""
    return amax / LEVELS >= SMALLEST_NORMAL


def to_bytes(ranges: Ranges) -> bytes:
    """Ranges as JSON bytes: one tensor per line, sorted by name."""
    return _document({"version": needed_version(ranges, VERSION), **written(ranges, ranges.to_json())})


def save_ranges(ranges: Ranges, path: Path) -> None:
    """Writes ranges, whole or not at all."""
    write_atomic(path, to_bytes(ranges))


def load_ranges(path: Path, say: Say = print) -> Ranges:
    """A ranges file -> Ranges. `say` gets one line if the file is of version 1, about the preprocessing that is assumed.

    Raises CalibrationError if it is missing, damaged, of a newer version, or holds a value that is not a range.
    """
    text = read_text(path, CalibrationError, "a ranges file", _MOST_BYTES)
    try:
        version, values = split_version(parse_json(text, _MOST_BYTES))
        if version <= VERSION:
            ranges = convert_known(_completed(values, version), Ranges)
    except DocumentError as error:
        raise CalibrationError(f"{path} is not a ranges file: {error}.", _AGAIN) from error
    if version > VERSION:
        raise CalibrationError(
            f"{path} is a ranges file of version {version}; this rtformer-deploy reads versions 1 to {VERSION}.",
            "Update rtformer-deploy, or measure them again: rtformer-deploy calibrate.",
        )
    if version == 1:
        say(f"{path} is of version 1, which does not record the preprocessing; {preprocessing(ranges)} are assumed.")
    return ranges


def ranges_hash(ranges: Ranges) -> str:
    """The SHA-256 of ranges, by which sidecars and recipes name them.

    It is that of the file in the earliest version that says all there is, so that ranges of earlier versions keep their hash. What is
    assumed of a version is not part of it.
    """
    data = ranges.to_json()
    data["model_sha256"] = data.pop("weights_sha256")
    for assumed in (ASSUMED, _ASSUMED):
        if all(data.get(key, value) == value for key, value in assumed.items()):
            data = {key: value for key, value in data.items() if key not in assumed}
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
    if prepared(ranges) != prepared(spec):
        measured, takes = preprocessing(ranges), preprocessing(spec)
        raise CalibrationError(f"These ranges were measured with {measured}; the model {spec.name} takes {takes}.", _AGAIN)


def shipped_ranges(spec: ModelSpec) -> Ranges | None:
    """The ranges that come with the project for a recipe; None if there are none, or they were measured with other weights."""
    path = content_dir("calibration") / f"{spec.name}.json"
    if not os.path.isfile(path):
        return None
    ranges = load_ranges(path)
    return ranges if spec.sha256 == ranges.weights_sha256 else None


def _completed(values: Mapping[str, Any], version: int) -> Mapping[str, Any]:
    """What a version says -> what this one says. Raises DocumentError if it does not say a part of the preprocessing that it should."""
    if version == 1:
        renamed = {"weights_sha256" if key == "model_sha256" else key: value for key, value in values.items()}
        return {**renamed, **_ASSUMED}
    complete = {**ASSUMED, **values} if version == 2 else values
    for key in (name for name in FIELDS if name not in complete):
        raise DocumentError(f"it has no {key}")
    return complete


def _document(data: dict[str, Any]) -> bytes:
    return json.dumps(data, indent=1, sort_keys=True).encode() + b"\n"
