"""Logits to a label map at the frame's own size: bilinear interpolation, then argmax, the lowest class on a tie.

Interpolation is a convex combination of four corners, so if the four logits around a pixel agree on the class, the pixel has that
class. Only the other cells are interpolated, and in those only the classes that may win. Rounding is the same as in the full
computation. The result can differ only if rounding turns a class that wins at all four corners into a tie.

With `corners` (align_corners) the logits are first interpolated to the engine's input size, all of them, and are the grid from there on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError
from ..types import LabelMap, Resize
from . import native
from .geometry import Axes, Axis, Size, output_steps

MAX_CLASSES = 256  # labels are uint8


def upsample_argmax(
    logits: NDArray[np.float32],
    size: Size,
    input_size: Size,
    resize: Resize = "stretch",
    *,
    corners: bool = False,
    threads: int | None = None,
) -> LabelMap:
    """Logits (C, h, w) over the engine's input -> labels (H, W) at the frame's `size`; any stride, up or down.

    `input_size` is the engine's (H, W), `resize` and `corners` how the frame was resized to it; `threads` None uses every CPU. Runs the
    native code if it is compiled, else NumPy, with the same result. Raises EngineError if a logit is NaN or infinite.
    """
    grid, rows, columns = reading(logits, size, input_size, resize, corners=corners).last_step(threads)
    if native.available():
        return native.upsample_argmax(grid, rows, columns, native.usable_threads(threads))
    return sparse_argmax(grid, rows, columns)


def upsample_argmax_reference(
    logits: NDArray[np.float32], size: Size, input_size: Size, resize: Resize = "stretch", *, corners: bool = False
) -> LabelMap:
    """The definition of `upsample_argmax`: interpolates every class at every pixel, then takes the argmax."""
    planes = upsampled(logits, size, input_size, resize, corners=corners)
    best = next(planes)
    labels = np.zeros(size, np.uint8)
    for index, values in enumerate(planes, 1):
        wins = values > best
        best[wins] = values[wins]
        labels[wins] = index
    return labels


def upsampled(
    logits: NDArray[np.float32], size: Size, input_size: Size, resize: Resize = "stretch", *, corners: bool = False
) -> Iterator[NDArray[np.float32]]:
    """Logits (C, h, w) -> one plane (H, W) at the frame's `size` for each class, one after another. Raises EngineError as above."""
    read = reading(logits, size, input_size, resize, corners=corners)
    for index in range(logits.shape[0]):
        yield read.plane(index)


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """How the pixels of a frame read their logits (C, h, w): bilinearly, in one step, or in two with the engine's input size between."""

    logits: NDArray[np.float32]
    steps: tuple[Axes, ...]

    def plane(self, index: int, rows: slice = slice(None), columns: slice = slice(None)) -> NDArray[np.float32]:
        """One class at all pixels of the frame (H, W), or at some of its rows and columns; nothing else is interpolated."""
        plane, last = self.logits[index], self.steps[-1]
        if len(self.steps) == 1:
            return interpolate_plane(plane, *last, rows, columns)
        needed = [_samples(axis, part) for axis, part in zip(last, (rows, columns), strict=True)]
        between = interpolate_plane(plane, *self.steps[0], *needed)
        return _interpolate(between, *last, rows, columns, needed[0].start, needed[1].start)

    def last_step(self, threads: int | None = None) -> tuple[NDArray[np.float32], Axis, Axis]:
        """The logits (C, h', w') that the last step reads, and its rows and columns. `threads` None uses every CPU."""
        if len(self.steps) == 1:
            return self.logits, *self.steps[0]
        return interpolated(self.logits, *self.steps[0], threads=threads), *self.steps[1]


def reading(logits: NDArray[np.float32], size: Size, input_size: Size, resize: Resize = "stretch", *, corners: bool = False) -> Reading:
    """Logits (C, h, w) over the engine's input -> how a frame of `size` reads them. Raises EngineError as `checked` does."""
    logits = checked(logits)
    return Reading(logits, output_steps((logits.shape[1], logits.shape[2]), size, input_size, resize, corners))


def interpolated(logits: NDArray[np.float32], rows: Axis, columns: Axis, *, threads: int | None = None) -> NDArray[np.float32]:
    """Finite, contiguous logits (C, h, w) -> every class at every place of the axes, (C, H, W). `threads` None uses every CPU."""
    if native.available():
        return native.interpolate(logits, rows, columns, native.usable_threads(threads))
    return np.stack([interpolate_plane(plane, rows, columns) for plane in logits])


def sparse_argmax(logits: NDArray[np.float32], rows: Axis, columns: Axis) -> LabelMap:
    """The same as the native code, in NumPy: logits (C, h, w) -> labels (H, W), interpolating the cells whose corners disagree."""
    corners = np.pad(logits.argmax(axis=0).astype(np.uint8), 1, mode="edge")  # (h+2, w+2)
    first = corners[:-1, :-1]  # (h+1, w+1) cells
    mixed = (first != corners[:-1, 1:]) | (first != corners[1:, :-1]) | (first != corners[1:, 1:])
    heights, widths = np.diff(rows.cells), np.diff(columns.cells)
    labels = np.repeat(np.repeat(first, widths, axis=1), heights, axis=0)
    padded = np.pad(logits, ((0, 0), (1, 1), (1, 1)), mode="edge")
    for height, width, k, j in _by_size(mixed, heights, widths):
        y = rows.cells[k, None] + np.arange(height)  # (cells, height)
        x = columns.cells[j, None] + np.arange(width)
        labels[y[:, :, None], x[:, None, :]] = _cells_argmax(padded, k, j, rows.weight[y], columns.weight[x])
    return labels


def mixed_share(logits: NDArray[np.float32]) -> float:
    """Logits (C, h, w) -> the share of cells whose four corners disagree and that must be interpolated."""
    corners = logits.argmax(axis=0)
    first = corners[:-1, :-1]
    mixed = (first != corners[:-1, 1:]) | (first != corners[1:, :-1]) | (first != corners[1:, 1:])
    return float(mixed.mean()) if mixed.size else 0.0


class NotFiniteError(EngineError):
    """A logit is NaN or infinite."""


def not_finite() -> NotFiniteError:
    """The error for a logit that is NaN or infinite, on a CPU or a GPU."""
    return NotFiniteError("The engine's output holds values that are not finite.", "If it runs in FP16, build it with --fp32.")


def checked(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits (C, h, w), contiguous float32. Raises EngineError if they are no label map's, or one is NaN or infinite."""
    if logits.ndim != 3 or logits.size == 0 or logits.shape[0] > MAX_CLASSES:
        raise EngineError(f"Logits of shape {logits.shape} are no label map's; they should be (classes, h, w) with 1 to 256 classes.")
    logits = np.ascontiguousarray(logits, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        finite = np.isfinite(logits.sum()) or np.isfinite(logits).all()
    if not finite:
        raise not_finite()
    return logits


def lerp(low: NDArray[np.float32], high: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values `weight` of the way from `low` to `high`. As plugins/bilinear.cuh: monotone in `low` and `high`, also after rounding."""
    result: NDArray[np.float32] = (np.float32(1) - weight) * low + weight * high
    return result


def interpolate_plane(
    plane: NDArray[np.float32], rows: Axis, columns: Axis, some_rows: slice = slice(None), some_columns: slice = slice(None)
) -> NDArray[np.float32]:
    """One class (h, w) -> (H, W), or some of its rows and columns: the columns first, then the rows."""
    return _interpolate(plane, rows, columns, some_rows, some_columns)


def _interpolate(
    plane: NDArray[np.float32], rows: Axis, columns: Axis, some_rows: slice, some_columns: slice, top: int = 0, left: int = 0
) -> NDArray[np.float32]:
    """As `interpolate_plane`; the plane's first sample is the one at row `top` and column `left` of the axes."""
    low, high = columns.low[some_columns] - left, columns.high[some_columns] - left
    wide = lerp(plane[:, low], plane[:, high], columns.weight[some_columns])
    return lerp(wide[rows.low[some_rows] - top], wide[rows.high[some_rows] - top], rows.weight[some_rows, None])


def _samples(axis: Axis, part: slice) -> slice:
    """The samples that some places of an axis read."""
    return slice(int(axis.low[part][0]), int(axis.high[part][-1]) + 1)


def _by_size(
    mixed: NDArray[np.bool_], heights: NDArray[np.int32], widths: NDArray[np.int32]
) -> Iterator[tuple[int, int, NDArray[np.intp], NDArray[np.intp]]]:
    """The mixed cells that hold pixels, in groups of one height and width: (height, width, cell rows, cell columns)."""
    k, j = np.nonzero(mixed)
    for height in np.unique(heights[heights > 0]).tolist():
        for width in np.unique(widths[widths > 0]).tolist():
            chosen = (heights[k] == height) & (widths[j] == width)
            if chosen.any():
                yield height, width, k[chosen], j[chosen]


def _cells_argmax(
    padded: NDArray[np.float32],
    k: NDArray[np.intp],
    j: NDArray[np.intp],
    row_weight: NDArray[np.float32],
    column_weight: NDArray[np.float32],
) -> NDArray[np.uint8]:
    """Cells (k, j) of padded logits (C, h+2, w+2), weights (cells, height) and (cells, width) -> labels (cells, height, width)."""
    corners = np.stack([padded[:, k, j], padded[:, k, j + 1], padded[:, k + 1, j], padded[:, k + 1, j + 1]])  # (4, C, cells)
    candidates = _may_win(corners)
    shape = (len(k), row_weight.shape[1], column_weight.shape[1])
    best, labels = np.full(shape, -np.inf, np.float32), np.zeros(shape, np.uint8)
    for index, cells in enumerate(candidates):
        (cells,) = np.nonzero(cells)
        top_left, top_right, bottom_left, bottom_right = corners[:, index, cells, None]  # (cells, 1)
        top = lerp(top_left, top_right, column_weight[cells])
        bottom = lerp(bottom_left, bottom_right, column_weight[cells])
        values = lerp(top[:, None, :], bottom[:, None, :], row_weight[cells][:, :, None])
        old = best[cells]
        wins = values > old
        best[cells] = np.where(wins, values, old)
        labels[cells] = np.where(wins, np.uint8(index), labels[cells])
    return labels


def _may_win(corners: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Corners (4, C, cells) -> (C, cells): False if a class's largest corner is below another class's smallest corner.

    The slack is sixteen rounding errors, as in plugins/upsample_argmax.cuh; interpolating equal values makes at most six.
    """
    top, floor = corners.max(axis=0), corners.min(axis=0).max(axis=0)
    candidates: NDArray[np.bool_] = (top + _slack(top)) >= (floor - _slack(floor))
    return candidates


def _slack(values: NDArray[np.float32]) -> NDArray[np.float32]:
    slack: NDArray[np.float32] = np.abs(values) * np.float32(2**-20) + np.float32(1e-30)
    return slack
