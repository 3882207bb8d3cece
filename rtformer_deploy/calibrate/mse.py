"""The range with the smallest mean squared error of rounding and clipping together."""

from __future__ import annotations

import numpy as np

from .histogram import BINS, Histogram

LEVELS = 127
_STEP = 16  # bins between two candidates


def mse(histogram: Histogram) -> float:
    """A histogram -> the amax, among multiples of 1/128 of its limit, with the smallest mean squared error."""
    filled = histogram.filled()
    if filled == 0:
        return 0.0
    counts = histogram.counts[:filled].astype(np.float64)
    centres = histogram.centres[:filled]
    best, least = histogram.largest, np.inf
    for bins in range(_STEP, min(filled + _STEP, BINS) + 1, _STEP):
        amax = histogram.edge(bins)
        scale = amax / LEVELS
        levels = np.minimum(np.rint(centres / scale), LEVELS)
        error = float(counts @ (levels * scale - centres) ** 2)
        if error <= least:
            best, least = amax, error
    return best
