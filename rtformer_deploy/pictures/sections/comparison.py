"""Reports of `compare`: for each its picture, its tables and its notes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from markupsafe import Markup
from msgspec import Meta

from ...comparison.result import Compared, Point
from ...formats.documents import DocumentError
from ..blocks import Block, Cell, Document, Heading, Lines, Number, Part, Picture, Table, part, short
from ..scatter import embed_scatter

_MOST_ROWS = 1000
#: A number at the beginning of a cell, with what may stand before and behind it: 1,234  ~3.5  97.1 %  1.44±0.04  2.00x
_NUMBER = re.compile(r"[~<]?(-?\d[\d,]*(?:\.\d+)?)(?![\dx/-]*x\d)")


@dataclass(frozen=True, slots=True)
class Told:
    """One table of a report; `right` are the indexes of the columns that hold numbers."""

    title: str
    columns: Annotated[tuple[str, ...], Meta(min_length=1, max_length=30)]
    rows: Annotated[tuple[tuple[str, ...], ...], Meta(max_length=_MOST_ROWS)]
    right: tuple[int, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A report of `compare`."""

    title: str
    tables: Annotated[tuple[Told, ...], Meta(max_length=10)]
    notes: Annotated[tuple[str, ...], Meta(max_length=200)] = ()
    points: Annotated[tuple[Point, ...], Meta(max_length=100)] = ()
    axes: tuple[str, str] = ("", "")


def check(data: Comparison) -> None:
    """Raises DocumentError if a row does not have a cell for each column, or a point is no place in a picture."""
    for table in data.tables:
        if any(len(row) != len(table.columns) for row in table.rows):
            raise DocumentError(f"the table {short(table.title)!r} has rows of another length than its head")
    for point in data.points:
        if not (0 < point.low_fps <= point.fps <= point.high_fps <= 1e9 and 0 <= point.miou <= 100):
            raise DocumentError(f"the point {short(point.name)!r} has impossible values")


def section(documents: Sequence[Document[Comparison]]) -> Part:
    """Reports -> their pictures, tables and notes."""
    return part("Comparison", documents, _details)


def _details(document: Document[Comparison]) -> Iterator[Block]:
    data = document.data
    yield Heading(document.name)
    if data.points:
        yield Picture(Markup(embed_scatter(Compared(short(data.title), (), {}, points=data.points, axes=data.axes))), short(data.title))
    for table in data.tables:
        rows = [[_cell(text, index in table.right) for index, text in enumerate(row)] for row in table.rows]
        yield Table(short(table.title), [short(name) for name in table.columns], rows)
        if table.note:
            yield Lines([short(table.note)])
    if data.notes:
        yield Lines([short(note) for note in data.notes])


def _cell(text: str, is_number: bool) -> Cell:
    """A cell's text, sorted by the number that it begins with if its column holds numbers."""
    found = _NUMBER.match(text) if is_number else None
    return short(text) if found is None else Number(float(found[1].replace(",", "")), short(text))
