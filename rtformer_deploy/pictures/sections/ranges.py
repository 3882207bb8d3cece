"""Ranges for INT8, as `calibrate` measured them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from ...types import Amax, Count
from ..blocks import Cell, Document, Number, Part, Table, count, short


@dataclass(frozen=True, slots=True)
class Ranges:
    """What is shown of a ranges file, of any version."""

    amax: Annotated[Mapping[str, Amax], Meta(min_length=1)]
    method: str
    images: Count
    model: str


def section(documents: Sequence[Document[Ranges]]) -> Part:
    """Ranges files -> a table of all of them."""
    columns = ("file", "model", "method", "images", "tensors", "largest range", "zero on every image", "widest tensor")
    return Part("Ranges for INT8", [Table("What was measured", columns, [_row(each.name, each.data) for each in documents])])


def _row(name: str, data: Ranges) -> list[Cell]:
    widest = max(data.amax, key=lambda tensor: data.amax[tensor])
    largest = Number(data.amax[widest], f"{data.amax[widest]:.4g}")
    dead = sum(value == 0 for value in data.amax.values())
    return [name, short(data.model), short(data.method), count(data.images), count(len(data.amax)), largest, count(dead), short(widest)]
