"""A running mean of logits over a source's frames: classes change less from frame to frame, and follow what moves more slowly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Smoother:
    """mean = `amount` * the mean so far + (1 - `amount`) * the logits; 0 changes nothing. It starts anew with another frame size."""

    def __init__(self, amount: float) -> None:
        self._amount = np.float32(amount)
        self._mean: NDArray[np.float32] | None = None
        self._size: tuple[int, int] | None = None

    def __call__(self, logits: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
        """A frame's logits (classes, h, w) and its size (H, W) -> the mean up to it, a new array."""
        if self._mean is None or self._size != size:
            self._mean, self._size = logits.copy(), size
        else:
            self._mean = self._amount * self._mean + (np.float32(1) - self._amount) * logits
        return self._mean
