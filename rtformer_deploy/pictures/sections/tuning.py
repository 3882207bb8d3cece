"""Reports of `tune`: mIoU against latency, and every mix that was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from markupsafe import Markup
from msgspec import Meta

from ...tuning.points import Point, key_of
from ...tuning.records import Milliseconds
from ...tuning.search import Mix
from ...types import Count, Share
from ..blocks import (
    Block,
    Cell,
    Document,
    Facts,
    Heading,
    Number,
    Part,
    Picture,
    Table,
    count,
    milliseconds,
    part,
    percent,
    short,
)
from ..pareto import draw_pareto
from ..svg import cropped

Points = Annotated[float, Meta(ge=-100, le=100)]


@dataclass(frozen=True, slots=True)
class Mixed:
    """One mix: its precision by block, mIoU from 0 to 1, and by how many points that lies below FP32."""

    name: str
    levels: Mix
    miou: Share
    drop: Points
    latency_ms: Milliseconds
    end_to_end_ms: Milliseconds
    latency_to_fp32: Milliseconds
    pareto: bool = False
    within: bool = False

    def point(self) -> Point:
        """What is drawn of it."""
        times = self.latency_ms, self.end_to_end_ms, self.latency_to_fp32
        return Point(key_of(self.levels), short(self.name), self.levels, self.miou, self.drop, *times)


@dataclass(frozen=True, slots=True)
class Tuning:
    """A report of `tune`; the first of `points` is FP32."""

    model: str
    backend: str
    dataset: str
    split: str
    frames: Count
    max_drop: Annotated[float, Meta(ge=0, le=1e6)]
    chosen: Mixed | None
    points: Annotated[tuple[Mixed, ...], Meta(min_length=1, max_length=1000)]
    command: str | None = None


def section(documents: Sequence[Document[Tuning]]) -> Part:
    """Reports -> for each its Pareto picture, its mixes, and how the chosen one is built."""
    return part("Mixes of precisions", documents, _details)


def _details(document: Document[Tuning]) -> Iterator[Block]:
    data = document.data
    points = [each.point() for each in data.points]
    chosen = None if data.chosen is None else next((each for each in points if each.key == key_of(data.chosen.levels)), None)
    title = f"{short(data.model)}, {short(data.backend)}, {short(data.dataset)} {short(data.split)}"
    yield Heading(document.name)
    picture = draw_pareto(points, chosen, data.max_drop, title, cropped)
    yield Picture(Markup(picture), f"Every mix that was scored on {data.frames:,} frames.")
    columns = ("mix", "blocks in INT8", "mIoU, %", "drop, points", "engine, ms", "frame, ms", "to FP32", "result")
    yield Table("Mixes", columns, [_row(mixed, point, point is chosen) for mixed, point in zip(data.points, points, strict=True)])
    if data.command:
        yield Facts([("to build it", short(data.command))])


def _row(mixed: Mixed, point: Point, chosen: bool) -> list[Cell]:
    times = milliseconds(mixed.latency_ms), milliseconds(mixed.end_to_end_ms)
    ratio = Number(mixed.latency_to_fp32, f"{mixed.latency_to_fp32:.2f}")
    said = ", ".join(word for word, true in (("chosen", chosen), ("Pareto", mixed.pareto), ("beyond the bound", not mixed.within)) if true)
    drop = Number(mixed.drop, f"{mixed.drop:.2f}")
    return [short(mixed.name), count(point.in_int8), percent(mixed.miou), drop, *times, ratio, said]
