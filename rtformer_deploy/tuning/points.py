"""Measured mixes: what one point is, which of them are on the Pareto front, and which is chosen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..files import sha256
from .search import Levels

#: Latencies closer than this share of the faster one are a tie.
TIE = 0.02
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Point:
    """One measured mix. `miou` 0 to 1; `drop` in points (percent) below FP32; `ratio` the engine's latency to FP32's in the same round,
    the median over the rounds, which a machine that was busy in some of them moves least. Latencies in ms: FP32's median times that."""

    key: str
    name: str
    levels: Levels
    miou: float
    drop: float
    latency_ms: float
    end_to_end_ms: float
    ratio: float

    @property
    def in_int8(self) -> int:
        """How many blocks are in INT8."""
        return sum(level == "int8" for level in self.levels.values())

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "levels": self.levels,
            "blocks_in_int8": self.in_int8,
            "miou": round(self.miou, 6),
            "drop": round(self.drop, 4),
            "latency_ms": round(self.latency_ms, 4),
            "end_to_end_ms": round(self.end_to_end_ms, 4),
            "latency_to_fp32": round(self.ratio, 4),
        }


def key_of(levels: Mapping[str, str]) -> str:
    """A short name that only the same levels have."""
    return sha256(json.dumps(dict(levels), sort_keys=True).encode())[:12]


def within(drop: float, max_drop: float) -> bool:
    """Whether a drop is allowed."""
    return drop <= max_drop + _ROUNDING


def summarise(
    scored: Mapping[str, tuple[str, Levels, float]], rounds: Sequence[Mapping[str, Sequence[float]]], baseline: str
) -> list[Point]:
    """Scores (key -> name, levels, mIoU) and rounds of latencies (key -> engine alone, end to end) -> points, the baseline first."""
    best = scored[baseline][2]
    single = [float(np.median([each[baseline][part] for each in rounds])) for part in (0, 1)]
    points = []
    for key, (name, levels, miou) in scored.items():
        engine, whole = (float(np.median([each[key][part] / each[baseline][part] for each in rounds])) for part in (0, 1))
        points.append(Point(key, name, dict(levels), miou, 100 * (best - miou), engine * single[0], whole * single[1], engine))
    return sorted(points, key=lambda point: point.key != baseline)


def front(points: Sequence[Point]) -> list[Point]:
    """The points that no other one beats in both mIoU and latency, fastest first."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda point: (point.ratio, -point.miou)):
        if not kept or point.miou > kept[-1].miou:
            kept.append(point)
    return kept


def choose(points: Sequence[Point], max_drop: float) -> Point | None:
    """The fastest point within the bound, the best mIoU among ties; None where only the baseline, which comes first, is within."""
    allowed = [point for point in points if within(point.drop, max_drop)]
    if not any(point is not points[0] for point in allowed):
        return None
    fastest = min(point.ratio for point in allowed)
    return max((point for point in allowed if point.ratio <= fastest * (1 + TIE)), key=lambda point: point.miou)
