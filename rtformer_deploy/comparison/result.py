"""What a comparison found, in the form that the screen, the page, the picture and the JSON file are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Table:
    """A title, the columns' heads and rows of texts, as many in each; `right` are the indexes of right-aligned columns.

    `note` is a line under it: what the figures count.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: tuple[int, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Point:
    """A contestant in the scatter picture: frames a second with the slowest and fastest round, mIoU in percent.

    `kind` says where the mIoU is from: measured here, or published.
    """

    name: str
    fps: float
    low_fps: float
    high_fps: float
    miou: float
    kind: Literal["measured", "published"]
    own: bool = False


@dataclass(frozen=True, slots=True)
class Compared:
    """The result of `compare`: a title, tables, notes, what the JSON file holds, and the points of the picture with its axes' labels."""

    title: str
    tables: tuple[Table, ...]
    facts: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    points: tuple[Point, ...] = ()
    axes: tuple[str, str] = ("", "")
