"""A suite's entrants with what was found about each -> the tables, the JSON file and the points of the picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import DeployError
from ..formats.published import Published
from .figures import Figures, Speed
from .prepare import Built
from .records import Scored
from .result import Point, Table
from .suite import Entrant

_NOTHING = "-"


@dataclass(frozen=True, slots=True)
class Row:
    """An entrant, and what is known: its plan and what it computes, its speed, its mIoU, or why it failed."""

    entrant: Entrant
    built: Built | None = None
    figures: Figures | None = None
    scored: Scored | None = None
    error: DeployError | None = None

    @property
    def name(self) -> str:
        return self.entrant.name

    @property
    def published(self) -> dict[str, Published]:
        """What others give for the network, by source."""
        return {} if self.entrant.network is None else dict(self.entrant.network.recipe.published)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "own": self.entrant.is_own,
            "status": "done" if self.error is None else "failed",
            "why": None if self.error is None else list(self.error.lines),
            **({} if self.built is None else self.built.to_json()),
            "random_weights": self.entrant.is_random,
            "miou": None if self.scored is None else round(100 * self.scored.miou, 2),
            "measured": None if self.figures is None else self.figures.to_json(),
            "published": {source: dataclasses.asdict(each) for source, each in self.published.items()},
        }


def tables(rows: Sequence[Row], frame: tuple[int, int], reference: str) -> tuple[Table, ...]:
    """What they are, how fast they are here, what failed and, apart from that, what others have published."""
    return tuple(filter(None, (_what(rows), _speeds(rows, frame, reference), _failures(rows), _published(rows))))


def points(rows: Sequence[Row]) -> tuple[Point, ...]:
    """The engines that ran and have an mIoU: the one that was measured here, else the first that was published on the val split."""
    return tuple(_points(rows))


def _points(rows: Sequence[Row]) -> Iterator[Point]:
    for row in rows:
        on_val = [each.miou for each in row.published.values() if each.miou is not None and each.split == "val"]
        if row.figures is None or (row.scored is None and not on_val):
            continue
        speed = row.figures.engine
        miou = on_val[0] if row.scored is None else 100 * row.scored.miou
        kind = "published" if row.scored is None else "measured"
        yield Point(row.name, speed.fps, speed.low_fps, speed.high_fps, miou, kind, row.entrant.is_own)


def _what(rows: Sequence[Row]) -> Table:
    columns = ("network", "parameters M", "GMACs", "input", "precision", "weights", "mIoU %", "plan MiB", "peak MiB")
    return Table("What they are", columns, tuple(map(_about, rows)), (1, 2, 6, 7, 8), _WHAT_NOTE)


_WHAT_NOTE = (
    "GMACs: multiplications with weights, for one input; products of activations, as in attention, are in the JSON file. "
    "Peak: memory of the process above what it held before the engine was opened."
)


def _about(row: Row) -> tuple[str, ...]:
    built = row.built
    if built is None:
        return (row.name, *[_NOTHING] * 8)
    facts = built.to_json()
    return (
        row.name,
        f"{built.parameters / 1e6:.2f}",
        _NOTHING if built.macs is None else f"{built.macs / 1e9:.2f}",
        "x".join(map(str, facts["input"])),
        f"{facts['precision_asked']} {facts['precision_found']}",
        "random" if row.entrant.is_random else str(facts["weights"] or "own"),
        _NOTHING if row.scored is None else f"{100 * row.scored.miou:.2f}",
        f"{facts['plan_mb']:.1f}",
        _NOTHING if row.figures is None else f"{row.figures.peak_mb:.0f}",
    )


def _speeds(rows: Sequence[Row], frame: tuple[int, int], reference: str) -> Table:
    columns = ("network", "p50 ms", "p99 ms", "FPS", "frame p50", "frame p99", "frame FPS", "ratio", "from", "to")
    size = "x".join(map(str, frame))
    note = (
        f"FPS and the first times are the engine's alone; a frame is the whole way from a decoded picture of {size} to its label map. "
        f"Ratio: the engine's speed relative to {reference}, the median of all rounds, from the smallest to the largest."
    )
    return Table(f"How fast they are here, frames of {size}", columns, tuple(map(_speed, rows)), tuple(range(1, 10)), note)


def _speed(row: Row) -> tuple[str, ...]:
    if row.figures is None:
        return (row.name, *[_NOTHING] * 9)
    engine, frame = row.figures.engine, row.figures.frame
    ratio = [_NOTHING] * 3 if engine.ratio is None else [f"{each:.2f}" for each in dataclasses.astuple(engine.ratio)]
    return (row.name, *_times(engine), *_times(frame), *ratio)


def _times(speed: Speed) -> tuple[str, str, str]:
    return f"{speed.p50_ms:.1f}", f"{speed.p99_ms:.1f}", f"{speed.fps:.1f}"


def _failures(rows: Sequence[Row]) -> Table | None:
    failed = tuple((row.name, " ".join(row.error.lines)) for row in rows if row.error is not None)
    return Table("Failed", ("network", "why"), failed) if failed else None


def _published(rows: Sequence[Row]) -> Table | None:
    lines = tuple(
        (
            row.name,
            _text(each.miou),
            each.split or _NOTHING,
            each.size or _NOTHING,
            _text(each.fps),
            each.device or _NOTHING,
            each.source or "",
        )
        for row in rows
        for each in row.published.values()
    )
    note = "These were not measured here. An FPS belongs to its device and its graph: it cannot be compared with those above."
    columns = ("network", "mIoU %", "split", "size", "FPS", "device", "source")
    return Table("Published by others", columns, lines, (1, 4), note) if lines else None


def _text(number: float | None) -> str:
    return _NOTHING if number is None else f"{number:g}"
