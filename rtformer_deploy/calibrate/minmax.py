"""The largest absolute value: nothing is clipped."""

from __future__ import annotations

from .histogram import Histogram


def minmax(histogram: Histogram) -> float:
    """A histogram -> the largest absolute value that it has counted, exactly."""
    return histogram.largest
