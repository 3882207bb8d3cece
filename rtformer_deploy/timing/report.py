"""The result of a bench run: latencies, percentiles and throughput, as JSON. Tables and pictures are made from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from .paced import Paced

Mode = Literal["latency", "throughput"]

PERCENTILE = "linear interpolation between the two nearest ranks"


@dataclass(frozen=True, slots=True)
class Timing:
    """Latencies of one measurement in ms, one for each step of `batch` frames; `seconds` is the time in which all of them were done."""

    latencies_ms: tuple[float, ...]
    batch: int
    seconds: float

    def percentile(self, share: float) -> float:
        """The latency in ms that `share` percent of the steps stay under (linear interpolation)."""
        return float(np.percentile(self.latencies_ms, share))

    @property
    def mean_ms(self) -> float:
        return float(np.mean(self.latencies_ms))

    @property
    def fps(self) -> float:
        """Frames a second: all frames over the time they took together."""
        return len(self.latencies_ms) * self.batch / self.seconds

    def to_json(self) -> dict[str, Any]:
        """p50_ms, p90_ms, p99_ms, mean_ms, min_ms, max_ms, fps, steps and the histogram."""
        return {
            "p50_ms": round(self.percentile(50), 4),
            "p90_ms": round(self.percentile(90), 4),
            "p99_ms": round(self.percentile(99), 4),
            "mean_ms": round(self.mean_ms, 4),
            "min_ms": round(min(self.latencies_ms), 4),
            "max_ms": round(max(self.latencies_ms), 4),
            "fps": round(self.fps, 3),
            "steps": len(self.latencies_ms),
            "seconds": round(self.seconds, 3),
            "histogram": histogram(self.latencies_ms),
        }


@dataclass(frozen=True, slots=True)
class Report:
    """One bench run. `stages` are medians in ms of a step (empty in throughput mode, where stages overlap).

    `engine_without_copies` is the device's own time (None: a CPU engine, which copies nothing, or throughput mode);
    `mixed_cells` is the share of logit cells whose corners disagree (None if the engine gives no small logits);
    `peak_memory_mb` the peak resident memory in MiB above what the process held before the engine was opened (None: not asked for);
    `paced` is the run at a fixed rate, `gpu` what was sampled of the GPU (None: not asked for, or a CPU);
    `notes` say what a reader must know before comparing.
    """

    engine: Timing
    end_to_end: Timing
    mode: Mode
    batch: int
    lanes: int
    warmup_s: float
    frame: Mapping[str, Any]
    model: Mapping[str, Any]
    environment: Mapping[str, Any]
    stages: Mapping[str, float] = field(default_factory=dict)
    engine_without_copies: Timing | None = None
    mixed_cells: float | None = None
    peak_memory_mb: float | None = None
    notes: tuple[str, ...] = ()
    conventions: Mapping[str, str] = field(default_factory=dict)
    paced: Paced | None = None
    gpu: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """The whole report as JSON values; `engine` and `end_to_end` each hold p50_ms, p90_ms, p99_ms, mean_ms and fps."""
        return {
            "engine": self.engine.to_json(),
            "end_to_end": self.end_to_end.to_json(),
            "engine_without_copies": None if self.engine_without_copies is None else self.engine_without_copies.to_json(),
            "paced": None if self.paced is None else self.paced.to_json(),
            "gpu": None if self.gpu is None else dict(self.gpu),
            "stages_ms": {name: round(value, 4) for name, value in self.stages.items()},
            "mode": self.mode,
            "batch": self.batch,
            "lanes": self.lanes,
            "warmup_s": self.warmup_s,
            "peak_memory_mb": None if self.peak_memory_mb is None else round(self.peak_memory_mb, 1),
            "mixed_cells": None if self.mixed_cells is None else round(self.mixed_cells, 4),
            "frame": dict(self.frame),
            "model": dict(self.model),
            "environment": dict(self.environment),
            "conventions": {**self.conventions, "percentile": PERCENTILE},
            "notes": list(self.notes),
        }


def histogram(latencies_ms: tuple[float, ...], bins: int = 40) -> dict[str, Any]:
    """Latencies as counts in equal bins from the fastest to the slowest, or to the 99.5th percentile if the slowest lies far beyond.

    Returns `start_ms`, `width_ms`, `counts` and `beyond`, the number left out: one straggler must not squeeze all others into one bar.
    """
    values = np.asarray(latencies_ms)
    low, high, most = float(values.min()), float(values.max()), float(np.percentile(values, 99.5))
    if high - low > 1.5 * (most - low) > 0:
        high = most
    count = min(bins, max(1, round(len(values) ** 0.5) * 2))
    width = max((high - low) / count, 1e-3)  # if all are equal: thin bars
    counts, _ = np.histogram(values, bins=count, range=(low, low + width * count))
    return {
        "start_ms": round(low, 4),
        "width_ms": round(width, 6),
        "counts": [int(number) for number in counts],
        "beyond": int(len(values) - counts.sum()),
    }
