"""Logits to a confidence map: how sure the winner of each pixel is, in 8 bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..types import ModelSpec, Resize
from . import native
from .geometry import Axis, Size
from .upsample import Reading, lerp, reading

#: The levels of a confidence map (H, W): 255 is certain; 1 / classes of it is the least that a winner can have.
ConfidenceMap = NDArray[np.uint8]

# Cephes' expf, highest power first; _native_confidence.hpp has the same.
_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)


def confidence_map(
    logits: NDArray[np.float32],
    size: Size,
    input_size: Size,
    resize: Resize = "stretch",
    *,
    corners: bool = False,
    threads: int | None = None,
    probabilities: bool = False,
) -> ConfidenceMap:
    """Logits (C, h, w) over the engine's input -> the winner's softmax at the frame's `size`, uint8 (H, W): 255 times it, rounded.

    The logits are interpolated as for the label map, then comes the softmax. Sizes, `resize`, `corners` and `threads` are those of
    `upsample_argmax`. With `probabilities` the values went through a softmax or a sigmoid already and are taken as they are. Runs the
    native code if it is compiled, else NumPy, with the same result. Raises EngineError if a logit is NaN or infinite.
    """
    read = reading(logits, size, input_size, resize, corners=corners)
    if probabilities:
        return _largest(read)
    grid, rows, columns = read.last_step(threads)
    if native.available():
        return native.confidence(grid, rows, columns, native.usable_threads(threads))
    return _confidence(grid, rows, columns)


def confidence_of(logits: NDArray[np.float32], size: Size, spec: ModelSpec, threads: int | None = None) -> ConfidenceMap:
    """An engine's logits (C, h, w) for a frame of `size`, and what the engine is -> `confidence_map`."""
    likely = spec.probabilities
    return confidence_map(logits, size, spec.size, spec.resize, corners=spec.resize_corners, threads=threads, probabilities=likely)


def _largest(read: Reading) -> ConfidenceMap:
    best = read.plane(0)
    for index in range(1, len(read.logits)):
        np.maximum(best, read.plane(index), out=best)
    return (np.clip(best, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)


def _confidence(logits: NDArray[np.float32], rows: Axis, columns: Axis) -> ConfidenceMap:
    """The same as the native code, in NumPy, one row of the frame after another."""
    levels = np.empty((rows.weight.size, columns.weight.size), np.uint8)
    for y, (low, high, weight) in enumerate(zip(rows.low, rows.high, rows.weight, strict=True)):
        wide = [lerp(logits[:, row, columns.low], logits[:, row, columns.high], columns.weight) for row in (low, high)]  # (C, W)
        values = lerp(wide[0], wide[1], weight)
        total = np.zeros(columns.weight.size, np.float32)
        with np.errstate(over="ignore"):
            for powers in _exp_of_negative(values - values.max(axis=0)):
                total += powers
        levels[y] = (np.float32(255) / total + np.float32(0.5)).astype(np.uint8)
    return levels


def _exp_of_negative(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """e^x of float32 x <= 0, rounded as the native code rounds."""
    x: NDArray[np.float32] = np.maximum(values, np.float32(-87))
    turns = np.rint(x * np.float32(1.44269504))
    rest: NDArray[np.float32] = x - turns * np.float32(0.693359375)
    rest -= turns * np.float32(-2.12194440e-4)
    total = np.full_like(rest, _EXP[0])
    for factor in _EXP[1:]:
        total *= rest
        total += np.float32(factor)
    total *= rest * rest
    total += rest
    total += np.float32(1)
    total *= ((turns.astype(np.int32) + 127) << 23).view(np.float32)
    return total
