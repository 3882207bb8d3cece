"""Reports of `bench`: latencies in one table, and how they are spread."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from markupsafe import Markup
from msgspec import Meta

from ...types import Count, Side
from ..blocks import (
    Block,
    Cell,
    Document,
    Heading,
    Lines,
    Milliseconds,
    Number,
    Part,
    Picture,
    Table,
    milliseconds,
    part,
    short,
    size,
)
from ..histogram import draw_counts

Rate = Annotated[float, Meta(ge=0, le=1e12)]


@dataclass(frozen=True, slots=True)
class Bars:
    """A histogram: counts in bins of equal width, and how many latencies are slower than all of them."""

    start_ms: Milliseconds
    width_ms: Annotated[float, Meta(gt=0, le=1e9)]
    counts: Annotated[tuple[Count, ...], Meta(min_length=1, max_length=1000)]
    beyond: Count = 0


@dataclass(frozen=True, slots=True)
class Timed:
    """One measurement."""

    p50_ms: Milliseconds
    p90_ms: Milliseconds
    p99_ms: Milliseconds
    mean_ms: Milliseconds
    max_ms: Milliseconds
    fps: Rate
    steps: Count
    histogram: Bars


@dataclass(frozen=True, slots=True)
class Model:
    """What was measured."""

    name: str
    input: tuple[Side, Side]
    backend: str | None = None
    precision_asked: str | None = None


@dataclass(frozen=True, slots=True)
class Paced:
    """A run at a fixed rate."""

    fps: Rate
    deadline_ms: Milliseconds
    frames_due: Count
    misses: Count
    p50_ms: Milliseconds
    p99_ms: Milliseconds
    jitter_ms: Milliseconds


@dataclass(frozen=True, slots=True)
class Bench:
    """A report of `bench`."""

    engine: Timed
    end_to_end: Timed
    model: Model
    batch: Count = 1
    lanes: Count = 1
    engine_without_copies: Timed | None = None
    stages_ms: Mapping[str, Milliseconds] = field(default_factory=dict)
    peak_memory_mb: Annotated[float, Meta(ge=0, le=1e12)] | None = None
    paced: Paced | None = None
    notes: tuple[str, ...] = ()


def section(documents: Sequence[Document[Bench]]) -> Part:
    """Reports -> a table of all of them, the stages, paced runs, and two histograms each."""
    blocks: list[Block] = [_latencies(documents)]
    if any(document.data.stages_ms for document in documents):
        blocks.append(_stages(documents))
    if any(document.data.paced for document in documents):
        blocks.append(_paced(documents))
    return part("Latency", documents, _histograms, *blocks)


def _latencies(documents: Sequence[Document[Bench]]) -> Table:
    columns = (
        "file", "model", "backend", "precision", "input", "batch", "lanes", "engine p50, ms", "engine p99, ms", "frame p50, ms",
        "frame p99, ms", "frames a second", "memory, MiB",
    )  # fmt: skip
    return Table("The engine alone, and a frame from its pixels to its label map", columns, [_row(document) for document in documents])


def _row(document: Document[Bench]) -> list[Cell]:
    data = document.data
    model, memory = data.model, data.peak_memory_mb
    return [
        document.name,
        short(model.name),
        short(model.backend or "-"),
        short(model.precision_asked or "-").upper(),
        size(*model.input),
        Number(data.batch, str(data.batch)),
        Number(data.lanes, str(data.lanes)),
        milliseconds(data.engine.p50_ms),
        milliseconds(data.engine.p99_ms),
        milliseconds(data.end_to_end.p50_ms),
        milliseconds(data.end_to_end.p99_ms),
        Number(data.end_to_end.fps, f"{data.end_to_end.fps:.1f}"),
        None if memory is None else Number(memory, f"{memory:.0f}"),
    ]


def _stages(documents: Sequence[Document[Bench]]) -> Table:
    names = list(dict.fromkeys(name for document in documents for name in list(document.data.stages_ms)[:10]))[:10]
    rows: list[list[Cell]] = []
    for document in documents:
        stages = document.data.stages_ms
        if stages:
            rows.append([document.name, *(milliseconds(stages[name]) if name in stages else None for name in names)])
    return Table("Stages of a frame, medians in ms", ("file", *map(short, names)), rows)


def _paced(documents: Sequence[Document[Bench]]) -> Table:
    columns = ("file", "frames a second", "deadline, ms", "frames due", "missed, %", "p50, ms", "p99, ms", "jitter, ms")
    return Table("Frames due at a fixed rate", columns, [_paced_row(each.name, each.data.paced) for each in documents if each.data.paced])


def _paced_row(name: str, paced: Paced) -> list[Cell]:
    missed = 100 * paced.misses / max(paced.frames_due, 1)
    due = Number(paced.frames_due, f"{paced.frames_due:,}")
    times = (paced.p50_ms, paced.p99_ms, paced.jitter_ms)
    rate = Number(paced.fps, f"{paced.fps:g}")
    return [name, rate, milliseconds(paced.deadline_ms), due, Number(missed, f"{missed:.2f}"), *map(milliseconds, times)]


def _histograms(document: Document[Bench]) -> Iterator[Block]:
    data = document.data
    yield Heading(document.name)
    for name, timed in (("Engine alone", data.engine), ("Frame to label map", data.end_to_end)):
        words = f"{name}: median {timed.p50_ms:.2f} ms, 99% of {timed.steps:,} steps under {timed.p99_ms:.2f} ms."
        if timed.histogram.beyond:
            words += f" {timed.histogram.beyond:,} slower than the axis, the slowest {timed.max_ms:.2f} ms."
        bars, marks = timed.histogram, {"p50": timed.p50_ms, "p99": timed.p99_ms}
        yield Picture(Markup(draw_counts(bars.start_ms, bars.width_ms, bars.counts, marks, words)), words, fluid=True)
    if data.notes:
        yield Lines([short(note) for note in data.notes[:20]])
