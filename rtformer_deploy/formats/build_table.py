"""A recipe's [build] table: the precision of its engine, and the data that the precision was tuned with.

[build]
precision = "int8"           what the engine is built as: "int8", "fp8", "fp16" or "fp32"
keep = ["layer1.0.bn1"]      layers that INT8 and FP8 leave out (globs): FP16 on TensorRT, FP32 on a CPU
fp32 = ["layer1.0.bn1"]      operators that TensorRT computes in FP32 (globs); on a CPU what is not INT8 is FP32 anyway
ranges = "ranges.json"       a file beside the recipe; if missing, the ranges that come with the project
backend, weights_sha256, ranges_sha256    what the mix was tuned on (earlier versions wrote model_sha256 for weights_sha256)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..errors import CalibrationError
from ..types import PathText, PrecisionName, Ranges, Say, Sha256, Text
from .ranges import load_ranges, ranges_hash

#: How a recipe that tune wrote begins, as a comment.
TUNED = "Written by rtformer-deploy tune"


@dataclass(frozen=True, slots=True)
class PrecisionMix:
    """An engine's precision and its exceptions (globs): `exclude` is left out of INT8 or FP8, `fp32` is left out of FP16 on TensorRT."""

    precision: PrecisionName = "fp32"
    exclude: tuple[str, ...] = ()
    fp32: tuple[str, ...] = ()

    @property
    def mixed(self) -> bool:
        """Whether only part of the engine is meant to be in `precision`."""
        return bool(self.exclude or self.fp32)


@dataclass(frozen=True, slots=True)
class BuildTable:
    """How an engine is built; None if the table does not say. `weights_sha256` means what it means in Ranges."""

    mix: PrecisionMix = field(default_factory=PrecisionMix)
    ranges: Path | None = None
    ranges_sha256: str | None = None
    weights_sha256: str | None = None
    backend: str | None = None


@dataclass(frozen=True, slots=True)
class BuildFile:
    """A [build] table as it is written."""

    precision: PrecisionName = "fp32"
    keep: tuple[Text, ...] = ()
    fp32: tuple[Text, ...] = ()
    ranges: PathText | None = None
    backend: Text | None = None
    weights_sha256: Sha256 | None = None
    model_sha256: Sha256 | None = None
    ranges_sha256: Sha256 | None = None


def build_of(file: BuildFile, folder: Path) -> BuildTable:
    """A [build] table of a recipe in `folder` -> how an engine is built."""
    return BuildTable(
        mix=PrecisionMix(file.precision, file.keep, file.fp32),
        ranges=None if file.ranges is None else folder / file.ranges,
        ranges_sha256=file.ranges_sha256,
        weights_sha256=file.weights_sha256 or file.model_sha256,
        backend=file.backend,
    )


def ranges_of_build(build: BuildTable, say: Say = print) -> Ranges | None:
    """The ranges file that a table names, read as `load_ranges` does; None if it names none.

    Raises CalibrationError if it is not the file used for tuning.
    """
    if build.ranges is None:
        return None
    ranges = load_ranges(build.ranges, say)
    if build.ranges_sha256 not in (None, ranges_hash(ranges)):
        raise CalibrationError(f"{build.ranges} is not the ranges file that the mix was tuned with.", "Tune again: rtformer-deploy tune.")
    return ranges
