"""Measured mixes as points: which are on the Pareto front, and which is chosen."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..files import sha256
from .records import Latency, Round, Score
from .search import Mix

#: Latencies closer than this share of the faster one are a tie.
TIE = 0.02
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Point:
    """One measured mix. `miou` 0 to 1; `drop` in points (percent) below FP32.

    `ratio` is the engine's latency to FP32's in the same round, the median over the rounds: robust to a few busy rounds. Latencies in
    ms are FP32's median times that.
    """

    key: str
    name: str
    mix: Mix
    miou: float
    drop: float
    latency_ms: float
    end_to_end_ms: float
    ratio: float

    @property
    def in_int8(self) -> int:
        """How many blocks are in INT8."""
        return sum(level == "int8" for level in self.mix.values())

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "levels": self.mix,
            "blocks_in_int8": self.in_int8,
            "miou": round(self.miou, 6),
            "drop": round(self.drop, 4),
            "latency_ms": round(self.latency_ms, 4),
            "end_to_end_ms": round(self.end_to_end_ms, 4),
            "latency_to_fp32": round(self.ratio, 4),
        }


def key_of(mix: Mapping[str, str]) -> str:
    """A short name that only the same mix has."""
    return sha256(json.dumps(dict(mix), sort_keys=True).encode())[:12]


def is_allowed(drop: float, max_drop: float) -> bool:
    """Whether a drop is within the bound."""
    return drop <= max_drop + _ROUNDING


def drop_of(score: Score, baseline: Score) -> float:
    """How many points (percent) of mIoU a mix loses against the baseline."""
    return 100 * (baseline.miou - score.miou)


def summarise(scores: Iterable[Score], rounds: Sequence[Round], baseline: Score) -> list[Point]:
    """Scores, and rounds that timed every one of them -> points, the baseline first."""
    points = [_point(score, rounds, baseline) for score in scores]
    return sorted(points, key=lambda point: point.key != baseline.key)


def _point(score: Score, rounds: Sequence[Round], baseline: Score) -> Point:
    pairs = [(each.latencies[score.key], each.latencies[baseline.key]) for each in rounds]
    engine = _median(mine.engine / single.engine for mine, single in pairs)
    whole = _median(mine.end_to_end / single.end_to_end for mine, single in pairs)
    single = Latency(_median(single.engine for _, single in pairs), _median(single.end_to_end for _, single in pairs))
    drop = drop_of(score, baseline)
    return Point(score.key, score.name, dict(score.mix), score.miou, drop, engine * single.engine, whole * single.end_to_end, engine)


def _median(values: Iterable[float]) -> float:
    return float(np.median(list(values)))


def front(points: Sequence[Point]) -> list[Point]:
    """The points that no other one beats in both mIoU and latency, fastest first."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.ratio, -point.miou)):
        if not best or point.miou > best[-1].miou:
            best.append(point)
    return best


def choose(points: Sequence[Point], max_drop: float) -> Point | None:
    """The fastest point within the bound, the best mIoU among ties; None if only the baseline, which comes first, is within."""
    allowed = [point for point in points if is_allowed(point.drop, max_drop)]
    if not any(point is not points[0] for point in allowed):
        return None
    fastest = min(point.ratio for point in allowed)
    return max((point for point in allowed if point.ratio <= fastest * (1 + TIE)), key=lambda point: point.miou)
