"""The range that loses least information: the Kullback-Leibler divergence between what was seen and its 128 levels.

Migacz, "8-bit inference with TensorRT" (GTC 2017).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .histogram import BINS, Histogram

LEVELS = 128
_STEP = 16


def entropy(histogram: Histogram) -> float:
    """A histogram -> the amax, at least 128 bins wide, whose quantised distribution diverges least from the clipped one."""
    filled = histogram.filled()
    if filled <= LEVELS:
        return histogram.largest
    counts = histogram.counts.astype(np.float64)
    best, least = histogram.largest, np.inf
    for bins in range(LEVELS, min(filled + _STEP, BINS) + 1, _STEP):
        clipped = counts[:bins].copy()
        clipped[-1] += counts[bins:].sum()
        found = _divergence(clipped, _quantise(counts[:bins]))
        if found <= least:
            best, least = histogram.edge(bins), found
    return best


def _quantise(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Counts merged into 128 levels and spread evenly over the bins of each level that held something."""
    level = np.arange(len(counts)) * LEVELS // len(counts)
    held = counts > 0
    sums = np.bincount(level, counts, LEVELS)
    bins = np.bincount(level, held, LEVELS)
    return np.where(held, sums[level] / np.maximum(bins[level], 1), 0.0)


def _divergence(seen: NDArray[np.float64], kept: NDArray[np.float64]) -> float:
    """KL(seen || kept) of two counts; a bin that `kept` lost is held to a tiny share instead of infinity."""
    if kept.sum() == 0:
        return np.inf
    p, q = seen / seen.sum(), kept / kept.sum()
    held = p > 0
    return float(np.sum(p[held] * np.log(p[held] / np.maximum(q[held], 1e-12))))
