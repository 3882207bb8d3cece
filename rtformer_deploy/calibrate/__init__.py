"""Calibration: what a model's tensors hold on real images -> the range of each. One file for each way to choose a range."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..errors import CalibrationError
from ..formats.ranges import has_scale
from .entropy import entropy
from .histogram import Histogram
from .minmax import minmax
from .mse import mse
from .percentile import percentile

#: method -> the observer that chooses amax from a histogram
OBSERVERS: dict[str, Callable[[Histogram], float]] = {"minmax": minmax, "entropy": entropy, "percentile": percentile, "mse": mse}

#: The method nearest to FP32 on trained networks (benchmarks/int8.py). Entropy, TensorRT's old default, clips the residual sums.
DEFAULT_METHOD = "mse"


def observer(method: str) -> Callable[[Histogram], float]:
    """The observer of that name. Raises CalibrationError."""
    if method not in OBSERVERS:
        raise CalibrationError(f"There is no calibration method {method!r}.", f"There are: {', '.join(OBSERVERS)}.")
    return OBSERVERS[method]


def choose_amax(histogram: Histogram, method: str) -> float:
    """A histogram -> its range by a method, as FP32; zero if it is too small for a scale. Raises CalibrationError."""
    amax = float(np.float32(observer(method)(histogram)))
    return amax if has_scale(amax) else 0.0
