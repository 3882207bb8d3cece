"""What was found about each format, as tables for a person and as JSON. Every format is a row, measured or with the reason why not."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..backends import REFERENCE
from ..types import PrecisionFound
from .contestant import Checked
from .figures import Figures, Speed
from .formats import REFERENCE_FORMAT
from .making import Made, Status
from .result import Point, Table


@dataclass(frozen=True, slots=True)
class FormatRow:
    """One format: how it was made, what its label maps are worth, how fast it is, and `error`, why it failed once it was made."""

    made: Made
    checked: Checked | None = None
    figures: Figures | None = None
    error: str | None = None

    @property
    def status(self) -> Status:
        return "failed" if self.error is not None else self.made.status

    @property
    def reason(self) -> str | None:
        """Why it is not done; None if it is."""
        return self.error if self.error is not None else self.made.reason

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know about it, each once."""
        return tuple(dict.fromkeys((*self.made.notes, *(() if self.checked is None else self.checked.notes))))

    def to_json(self) -> dict[str, Any]:
        made, checked = self.made, self.checked
        miou = None if checked is None else checked.miou
        return {
            "name": made.format.name,
            "status": self.status,
            "why": None if self.reason is None else [self.reason],
            "backend": made.format.backend if made.format.provider is None else REFERENCE,
            "execution_provider": made.format.provider,
            "bytes": made.size,
            "precision": None if made.precision is None else dataclasses.asdict(made.precision),
            "miou": None if miou is None else round(100 * miou, 2),
            "flips": None if checked is None else max(checked.changed.values(), default=None),
            "flips_on": {} if checked is None else dict(checked.changed),
            "measured": None if self.figures is None else self.figures.to_json(),
            "notes": list(self.notes),
        }


def tables(rows: Sequence[FormatRow]) -> tuple[Table, ...]:
    """The rows as what each format is, how fast it is, and why the others were not measured."""
    return tuple(table for table in (_what(rows), _how_fast(rows), _why_not(rows)) if table.rows)


def points(rows: Sequence[FormatRow]) -> tuple[Point, ...]:
    """Speed and mIoU of the formats that have both, for the picture."""
    return tuple(
        Point(row.made.format.name, speed.fps, speed.low_fps, speed.high_fps, 100 * row.checked.miou, "measured")
        for row in rows
        if row.figures is not None and row.error is None and row.checked is not None and row.checked.miou is not None
        for speed in (row.figures.engine,)
    )


def _what(rows: Sequence[FormatRow]) -> Table:
    scored = any(row.checked is not None and row.checked.miou is not None for row in rows)
    body = tuple(
        (row.made.format.name, row.status, _size(row.made.size), precision_text(row.made.precision), _worth(row, scored)) for row in rows
    )
    note = (
        "mIoU: over all frames of the split."
        if scored
        else "changed: pixels that get another class than in ONNX Runtime without optimisation, on a photograph or on noise."
    )
    columns = ("format", "status", "MiB", "precision found", "mIoU" if scored else "changed")
    return Table("What they are", columns, body, (2, 4), note)


def _how_fast(rows: Sequence[FormatRow]) -> Table:
    body = tuple(
        (row.made.format.name, *_speed(row.figures.engine), _ratio(row.figures.engine), *_speed(row.figures.frame))
        for row in rows
        if row.figures is not None and row.error is None
    )
    note = (
        "In ms and frames a second. frame: from a decoded frame to its label map. "
        f"ratio: the engine's speed over that of {REFERENCE_FORMAT}, the median of the rounds ± its 95 % interval "
        "(of fewer than six rounds: ± the round farthest from it)."
    )
    return Table("Speed", ("", "p50", "p99", "FPS", "ratio", "frame p50", "p99", "FPS"), body, tuple(range(1, 8)), note)


def _why_not(rows: Sequence[FormatRow]) -> Table:
    told: dict[str, list[str]] = {}
    for row in rows:
        if row.reason is not None:
            told.setdefault(f"{row.status}: {row.reason}", []).append(row.made.format.name)
    return Table("Not done here", ("format", "why"), tuple((_listed(names), why) for why, names in told.items()))


def _listed(names: Sequence[str]) -> str:
    """Names of formats: what they begin with is said once, "OpenVINO FP32, FP16"."""
    text, last = names[0], names[0].rpartition(" ")[0]
    for name in names[1:]:
        start, _, end = name.rpartition(" ")
        text += f", {end if start == last else name}"
        last = start
    return text


def precision_text(found: PrecisionFound | None) -> str:
    """The precision of a format's layers in a cell: "int8 40, fp32 17", and what was asked for if that is not what was found."""
    if found is None:
        return "-"
    layers = ", ".join(f"{name} {count}" for name, count in sorted(found.layers.items(), key=lambda item: -item[1]))
    if found.state == "requested":
        return f"{found.asked} asked for"
    return layers if found.state == "verified" else f"{layers}, not {found.asked}"


def _worth(row: FormatRow, scored: bool) -> str:
    if row.checked is None:
        return "-"
    share = row.checked.miou if scored else max(row.checked.changed.values(), default=None)
    return "-" if share is None else f"{100 * share:.2f}%"


def _size(size: int | None) -> str:
    return "-" if size is None else f"{size / 2**20:.1f}"


def _speed(speed: Speed) -> tuple[str, str, str]:
    return _three_digits(speed.p50_ms), _three_digits(speed.p99_ms), _three_digits(speed.fps)


def _three_digits(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def _ratio(speed: Speed) -> str:
    if speed.ratio is None:
        return "-"
    spread = max(speed.ratio.high - speed.ratio.median, speed.ratio.median - speed.ratio.low)
    return f"{speed.ratio.median:.2f}±{spread:.2f}"
