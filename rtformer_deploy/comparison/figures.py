"""Rounds -> each contestant's figures: percentiles, frames a second, memory, and its speed relative to another's."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .turns import Part, Ratio, Round, frame_times, ratio


@dataclass(frozen=True, slots=True)
class Speed:
    """Times of a frame in ms over all rounds, and the frames a second that they mean.

    `low_fps` and `high_fps` are those of the slowest and the fastest round; `ratio` is the speed relative to the reference's (None:
    they never ran in one round).
    """

    p50_ms: float
    p99_ms: float
    fps: float
    low_fps: float
    high_fps: float
    steps: int
    ratio: Ratio | None

    def to_json(self) -> dict[str, Any]:
        numbers = {key: value for key, value in dataclasses.asdict(self).items() if key != "ratio"}
        rounded = {key: round(value, 4) for key, value in numbers.items()}
        return rounded | {"ratio": None if self.ratio is None else [round(each, 4) for each in dataclasses.astuple(self.ratio)]}


@dataclass(frozen=True, slots=True)
class Figures:
    """How fast a contestant is: its engine alone, and from a decoded frame to a label map. `peak_mb` is the most memory, in MiB."""

    engine: Speed
    frame: Speed
    peak_mb: float
    rounds: int

    def to_json(self) -> dict[str, Any]:
        return {
            "engine": self.engine.to_json(),
            "frame": self.frame.to_json(),
            "peak_memory_mb": round(self.peak_mb, 1),
            "rounds": self.rounds,
        }


def figures(rounds: Sequence[Round], name: str, reference: str) -> Figures | None:
    """What the rounds say about a contestant; None if it ran in none of them."""
    own = [each for each in rounds if name in each]
    if not own:
        return None
    peak = max(each[name].peak_mb for each in own)
    return Figures(_speed(own, name, reference, "engine"), _speed(own, name, reference, "frame"), peak, len(own))


def _speed(rounds: Sequence[Round], name: str, reference: str, part: Part) -> Speed:
    turns = [frame_times(each[name], part) for each in rounds]
    times = np.concatenate(turns)
    fps = 1000 / float(np.mean(times))
    by_round = [1000 / float(np.mean(each)) for each in turns]
    return Speed(
        p50_ms=float(np.percentile(times, 50)),
        p99_ms=float(np.percentile(times, 99)),
        fps=fps,
        low_fps=min(fps, *by_round),  # with one round the two differ by rounding
        high_fps=max(fps, *by_round),
        steps=len(times),
        ratio=ratio(rounds, name, reference, part),
    )
