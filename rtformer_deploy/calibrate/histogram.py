"""A streaming histogram of absolute values. Its memory is fixed; to grow its range, it doubles the width of its bins."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 2048
_LARGEST = float(np.finfo(np.float32).max)


class Histogram:
    """|values| seen so far: `counts` over [0, limit) in 2048 equal bins, and the exact `largest`.

    Exact zeros are counted apart in `zeros`: every scale can hold them, so they say nothing about the range, and after a ReLU
    there may be more of them than of all other values. `top` of the last bin's values equal `limit` itself: they belong there only
    until the range grows. So histograms of parts can be added, and give what one of all values gives.
    """

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros(BINS, np.int64)
        self.limit = 0.0
        self.largest = 0.0
        self.zeros = 0
        self.top = 0

    def add(self, values: NDArray[Any]) -> None:
        """Counts an array of any shape. Raises ValueError if it holds NaN or infinity."""
        absolute = np.abs(values, dtype=np.float32).ravel()
        largest = float(absolute.max(initial=0.0))
        if not math.isfinite(largest):
            raise ValueError("not finite")
        nonzero = absolute[absolute > 0]
        self.zeros += absolute.size - nonzero.size
        if nonzero.size == 0:
            return
        self._grow(largest)
        width = BINS / self.limit  # a power of two, so FP32 gives what FP64 gives as long as it can hold it
        factor: np.float32 | np.float64 = np.float32(width) if width < _LARGEST else np.float64(width)
        index = np.minimum((nonzero * factor).astype(np.int32), BINS - 1)
        self.counts += np.bincount(index, minlength=BINS)
        if largest == self.limit:
            self.top += int((nonzero == largest).sum())
        self.largest = max(self.largest, largest)

    def merge(self, other: Histogram) -> None:
        """Adds what another one has counted; the other's bins may become wider, but it still counts the same values."""
        self.zeros += other.zeros
        if other.limit == 0.0:
            return
        limit = max(self.limit, other.limit)
        self._grow(limit)
        other._grow(limit)
        self.counts += other.counts
        self.top += other.top
        self.largest = max(self.largest, other.largest)

    @property
    def centres(self) -> NDArray[np.float64]:
        """The middle of each bin."""
        return np.asarray((np.arange(BINS) + 0.5) * (self.limit / BINS), np.float64)

    def filled(self) -> int:
        """The number of bins up to the last one that is not empty."""
        return int(np.flatnonzero(self.counts)[-1]) + 1 if self.counts.any() else 0

    def edge(self, bins: int) -> float:
        """The upper edge of the first `bins` bins, at most the largest value seen."""
        return min(self.limit * bins / BINS, self.largest)

    def _grow(self, largest: float) -> None:
        """Makes room for `largest`. Limits are powers of two, so that the order of the values makes no difference."""
        if self.limit == 0.0:
            self.limit = 2.0 ** math.ceil(math.log2(largest))
        while self.limit < largest:
            self.counts[: BINS // 2] = self.counts.reshape(-1, 2).sum(1)
            self.counts[BINS // 2 :] = 0
            self.counts[BINS // 2 - 1] -= self.top
            self.counts[BINS // 2] += self.top
            self.top = 0
            self.limit *= 2
