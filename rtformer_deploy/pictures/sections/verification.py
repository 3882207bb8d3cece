"""Reports of `verify`: two models beside each other, and the first stage in which they differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from ...types import Count, Share
from ..blocks import Block, Cell, Document, Heading, Number, Part, RoundedShare, Table, count, part, percent, short


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage; `differs` None: it could not be compared, and `detail` says why."""

    stage: str
    differs: bool | None
    difference: float | None
    detail: str
    image: str = ""


@dataclass(frozen=True, slots=True)
class Verification:
    """A report of `verify`."""

    a: str
    b: str
    images: Count
    first_difference: str | None
    stages: Annotated[tuple[Stage, ...], Meta(max_length=32)]
    flips: Share
    flips_within_margin: Share | None = None
    boundary_f_score: RoundedShare | None = None
    miou_drop: Annotated[float, Meta(ge=-100, le=100)] | None = None


def section(documents: Sequence[Document[Verification]]) -> Part:
    """Reports -> a table of all of them, and the stages of each."""
    return part("Comparison of two", documents, _stages, _overview(documents))


def _overview(documents: Sequence[Document[Verification]]) -> Table:
    columns = (
        "file", "A", "B", "images", "first difference", "changed pixels, %", "of them near a tie, %", "boundary F-score, %",
        "mIoU drop, points",
    )  # fmt: skip
    return Table("What changes from A to B", columns, [_row(document.name, document.data) for document in documents])


def _row(name: str, data: Verification) -> list[Cell]:
    near = None if data.flips_within_margin is None or not data.flips else min(1.0, data.flips_within_margin / data.flips)
    drop = None if data.miou_drop is None else Number(data.miou_drop, f"{data.miou_drop:.2f}")
    shares = percent(data.flips, 4), percent(near, 1), percent(data.boundary_f_score)
    return [name, short(data.a), short(data.b), count(data.images), short(data.first_difference or "none"), *shares, drop]


def _stages(document: Document[Verification]) -> Iterator[Block]:
    said = {True: "yes", False: "no", None: "not compared"}
    rows: list[list[Cell]] = [
        [short(each.stage), said[each.differs], short(each.detail), short(each.image)] for each in document.data.stages
    ]
    yield Heading(document.name)
    yield Table("Stages", ("stage", "differs", "by how much", "most in"), rows)
