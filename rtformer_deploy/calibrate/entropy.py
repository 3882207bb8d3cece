"""The range that loses the least information, by the Kullback-Leibler divergence between the values and their 128 levels.

Migacz, "8-bit inference with TensorRT" (GTC 2017).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .histogram import BINS, Histogram

LEVELS = 128
_STEP = 16


def entropy(histogram: Histogram) -> float:
    """A histogram -> the amax, at least 128 bins wide, for which the quantised and the clipped distribution diverge least."""
    filled = histogram.filled()
    if filled <= LEVELS:
        return histogram.largest
    counts = histogram.counts.astype(np.float64)
    best, least = histogram.largest, np.inf
    for bins in range(LEVELS, min(filled + _STEP, BINS) + 1, _STEP):
        clipped = counts[:bins].copy()
        clipped[-1] += counts[bins:].sum()
        divergence = _divergence(clipped, _quantise(counts[:bins]))
        if divergence <= least:
            best, least = histogram.edge(bins), divergence
    return best


def _quantise(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Counts merged into 128 levels and spread evenly over the level's bins that were not empty."""
    level = np.arange(len(counts)) * LEVELS // len(counts)
    nonempty = counts > 0
    sums = np.bincount(level, counts, LEVELS)
    bins = np.bincount(level, nonempty, LEVELS)
    return np.where(nonempty, sums[level] / np.maximum(bins[level], 1), 0.0)


def _divergence(seen: NDArray[np.float64], kept: NDArray[np.float64]) -> float:
    """KL(seen || kept) of two counts; a bin that is empty in `kept` counts as a tiny share, so that the result is finite."""
    if kept.sum() == 0:
        return np.inf
    p, q = seen / seen.sum(), kept / kept.sum()
    nonempty = p > 0
    return float(np.sum(p[nonempty] * np.log(p[nonempty] / np.maximum(q[nonempty], 1e-12))))
