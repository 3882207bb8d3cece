"""A suite's entrants with what was found about each -> the tables, the JSON file and the points of the picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import DeployError
from ..formats.published import Published
from .figures import Figures, Speed
from .making import reason_of
from .prepare import Built
from .records import Scored
from .result import Point, Table
from .suite import Entrant
from .turns import Part

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
    def is_random(self) -> bool:
        """Whether its weights are random, so that only speed and size mean something."""
        return self.entrant.file is None or (self.built is not None and (self.built.info.spec.weights or "").startswith("random"))

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
            "random_weights": self.is_random,
            "miou": None if self.scored is None else round(100 * self.scored.miou, 2),
            "measured": None if self.figures is None else self.figures.to_json(),
            "published": {source: dataclasses.asdict(each) for source, each in self.published.items()},
        }


def tables(rows: Sequence[Row], frame: tuple[int, int], reference: str) -> tuple[Table, ...]:
    """What they are, how fast they are here, what failed and, apart from that, what others have published."""
    size = "x".join(map(str, frame))
    engine = _speeds(rows, "engine", f"The engine alone, for frames of {size}", _RATIO_NOTE.format(reference))
    whole = _speeds(rows, "frame", f"The whole way, from a decoded frame of {size} to its label map", "")
    return _what(rows), engine, whole, *_failures(rows), *_published(rows)


def points(rows: Sequence[Row]) -> tuple[Point, ...]:
    """The engines that ran and have an mIoU: the one that was measured here, else the first that was published on the val split.

    None if there is only one, which shows nothing beside another.
    """
    found = tuple(_points(rows))
    return found if len(found) > 1 else ()


def _points(rows: Sequence[Row]) -> Iterator[Point]:
    for row in rows:
        on_val = [each.miou for each in row.published.values() if each.miou is not None and each.split == "val"]
        if row.figures is None or (row.scored is None and not on_val):
            continue
        speed = row.figures.engine
        miou = on_val[0] if row.scored is None else 100 * row.scored.miou
        yield Point(
            row.name, speed.fps, speed.low_fps, speed.high_fps, miou, "published" if row.scored is None else "measured", row.entrant.is_own
        )


_WHAT_NOTE = (
    "GMACs: multiplications for one input, in convolutions and linear layers and between activations, as in attention. "
    "Parameters in millions, plan and memory in MiB; memory is the most that the process had above what it held before the engine was "
    "opened."
)
_RATIO_NOTE = (
    "Ratio: the speed relative to {}, the median of all rounds, and the interval that holds it with a confidence of 95 % "
    "(of fewer than six rounds: the smallest and the largest)."
)


def _what(rows: Sequence[Row]) -> Table:
    columns = ("network", "params", "GMACs", "input", "precision", "mIoU %", "plan", "memory")
    return Table("What they are", columns, tuple(map(_about, rows)), (1, 2, 5, 6, 7), _WHAT_NOTE)


def _about(row: Row) -> tuple[str, ...]:
    built = row.built
    if built is None:
        return (row.name, *[_NOTHING] * 7)
    precision = built.info.precision
    return (
        row.name,
        f"{built.parameters / 1e6:.2f}",
        _NOTHING if built.all_macs is None else f"{built.all_macs / 1e9:.2f}",
        "x".join(map(str, built.info.spec.size)),
        precision.asked + (f" ({precision.state})" if precision.state != "verified" else ""),
        _NOTHING if row.scored is None else f"{100 * row.scored.miou:.2f}",
        f"{built.plan_mb:.1f}",
        _NOTHING if row.figures is None else f"{row.figures.peak_mb:.0f}",
    )


def _speeds(rows: Sequence[Row], part: Part, title: str, note: str) -> Table:
    columns = ("network", "p50 ms", "p99 ms", "FPS", "ratio", "from", "to")
    return Table(title, columns, tuple(_speed(row, part) for row in rows), tuple(range(1, 7)), note)


def _speed(row: Row, part: Part) -> tuple[str, ...]:
    if row.figures is None:
        return (row.name, *[_NOTHING] * 6)
    speed: Speed = getattr(row.figures, part)
    ratio = [_NOTHING] * 3 if speed.ratio is None else [f"{each:.2f}" for each in dataclasses.astuple(speed.ratio)]
    return (row.name, f"{speed.p50_ms:.1f}", f"{speed.p99_ms:.1f}", f"{speed.fps:.1f}", *ratio)


def _failures(rows: Sequence[Row]) -> tuple[Table, ...]:
    failed = tuple((row.name, reason_of(row.error)) for row in rows if row.error is not None)
    return (Table("Failed", ("network", "why"), failed),) if failed else ()


def _published(rows: Sequence[Row]) -> tuple[Table, ...]:
    """What others give, with a number for each source and device, and what these numbers mean."""
    lines = [(row.name, each) for row in rows for each in row.published.values()]
    sources = list(dict.fromkeys((each.source, each.device) for _, each in lines))
    figures = tuple((name, *_figures(each), str(1 + sources.index((each.source, each.device)))) for name, each in lines)
    listed = tuple((str(number), source or _NOTHING, device or _NOTHING) for number, (source, device) in enumerate(sources, 1))
    note = "These were not measured here. An FPS belongs to its device and its graph: it cannot be compared with those above."
    if not lines:
        return ()
    return (
        Table("Published by others", ("network", "mIoU %", "split", "size", "FPS", "source"), figures, (1, 4, 5), note),
        Table("Sources", ("", "source", "device of the FPS"), listed),
    )


def _figures(each: Published) -> tuple[str, str, str, str]:
    return _text(each.miou), each.split or _NOTHING, each.size or _NOTHING, _text(each.fps)


def _text(number: float | None) -> str:
    return _NOTHING if number is None else f"{number:g}"
