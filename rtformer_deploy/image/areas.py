"""How much of a label map each class has, as values and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..types import LabelMap

#: The columns of a CSV file of areas: which frame, when (seconds; empty for a picture), which class, how much of it.
AREA_COLUMNS = ("frame", "time", "class_id", "class", "pixels", "share")


@dataclass(frozen=True, slots=True)
class ClassArea:
    """A class's pixels in a frame, and their share of the frame's pixels that have a class."""

    index: int
    name: str
    pixels: int
    share: float


def class_areas(labels: LabelMap, names: Sequence[str]) -> tuple[ClassArea, ...]:
    """A label map (H, W) and the classes' names -> one ClassArea for each class, also for those that do not occur.

    Pixels with an id that is no class's (255, "ignored") belong to none and do not count for the shares.
    """
    counts = np.bincount(labels.ravel(), minlength=len(names))[: len(names)].tolist()
    total = sum(counts)
    return tuple(
        ClassArea(index, name, count, count / total if total else 0.0)
        for index, (name, count) in enumerate(zip(names, counts, strict=True))
    )


def area_rows(frame: str, time: float | None, areas: Iterable[ClassArea]) -> str:
    """A frame's areas -> lines of CSV under AREA_COLUMNS, one for each class."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    when = "" if time is None else f"{time:.6f}"
    rows.writerows((frame, when, area.index, area.name, area.pixels, f"{area.share:.6f}") for area in areas)
    return text.getvalue()


def area_header() -> str:
    """The first line of a CSV file of areas."""
    return ",".join(AREA_COLUMNS) + "\n"
