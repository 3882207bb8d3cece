"""Logits to a label map at the frame's own size: bilinear interpolation, then argmax, the lowest class on a tie.

Interpolation is a convex combination of four corners, so if the four logits around a pixel agree on the class, the pixel has that
class. Only the other cells are interpolated, and in those only the classes that may win. Rounding is the same as in the full
computation. The result can differ only if rounding turns a class that wins at all four corners into a tie.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError
from ..types import LabelMap, Resize
from . import native
from .geometry import Axis, Size, output_axes

MAX_CLASSES = 256  # labels are uint8


def upsample_argmax(
    logits: NDArray[np.float32], size: Size, input_size: Size, resize: Resize = "stretch", *, threads: int | None = None
) -> LabelMap:
    """Logits (C, h, w) over the engine's input -> labels (H, W) at the frame's `size`; any stride, up or down.

    `input_size` is the engine's (H, W), `resize` how the frame was resized to it; `threads` None uses every CPU. Runs the native
    code if it is compiled, else NumPy, with the same result. Raises EngineError if a logit is NaN or infinite.
    """
    logits = checked(logits)
    rows, columns = output_axes((logits.shape[1], logits.shape[2]), size, input_size, resize)
    if native.available():
        return native.upsample_argmax(logits, rows, columns, native.usable_threads(threads))
    return sparse_argmax(logits, rows, columns)


def upsample_argmax_reference(logits: NDArray[np.float32], size: Size, input_size: Size, resize: Resize = "stretch") -> LabelMap:
    """The definition of `upsample_argmax`: interpolates every class at every pixel, then takes the argmax."""
    planes = upsampled(logits, size, input_size, resize)
    best = next(planes)
    labels = np.zeros(size, np.uint8)
    for index, values in enumerate(planes, 1):
        wins = values > best
        best[wins] = values[wins]
        labels[wins] = index
    return labels


def upsampled(logits: NDArray[np.float32], size: Size, input_size: Size, resize: Resize = "stretch") -> Iterator[NDArray[np.float32]]:
    """Logits (C, h, w) -> one plane (H, W) at the frame's `size` for each class, one after another. Raises EngineError as above."""
    logits = checked(logits)
    rows, columns = output_axes((logits.shape[1], logits.shape[2]), size, input_size, resize)
    for plane in logits:
        yield interpolate_plane(plane, rows, columns)


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


def not_finite() -> EngineError:
    """The error for a logit that is NaN or infinite, on a CPU or a GPU."""
    return EngineError("The engine's output holds values that are not finite.", "If it runs in FP16, build it with --fp32.")


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
    wide = lerp(plane[:, columns.low[some_columns]], plane[:, columns.high[some_columns]], columns.weight[some_columns])
    return lerp(wide[rows.low[some_rows]], wide[rows.high[some_rows]], rows.weight[some_rows, None])


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
