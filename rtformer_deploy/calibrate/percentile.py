"""The 99.99th percentile: one in ten thousand of the non-zero values is larger."""

from __future__ import annotations

import numpy as np

from .histogram import Histogram

SHARE = 0.9999


def percentile(histogram: Histogram) -> float:
    """A histogram -> the upper edge of the bin that holds the 99.99th percentile of the non-zero absolute values."""
    total = np.cumsum(histogram.counts)
    if total[-1] == 0:
        return 0.0
    return histogram.edge(int(np.searchsorted(total, SHARE * total[-1])) + 1)
