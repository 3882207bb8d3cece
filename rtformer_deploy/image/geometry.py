"""Where the pixels of one grid lie in another: frame -> engine input, and logits -> frame.

All maps are bilinear. With half-pixel centres, the usual way, the centre of sample i lies at i + 0.5, and positions outside the grid
take the value at its edge; logits are read once, straight from their grid. With `corners` (PyTorch's align_corners) the outermost
samples of both grids lie on each other, and logits are read in two steps: at the input's size, then at the frame's from there. `stretch`
maps the whole frame onto the whole input; `letterbox` scales it by the smaller of the two ratios and centres it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..types import Resize

Size = tuple[int, int]  # (H, W)
Indices = NDArray[np.intp]

#: The native code works on tiles of 8 pixels and may read the weights of 7 pixels after the last, without using them.
WEIGHT_PADDING = 7


@dataclass(frozen=True, slots=True)
class Window:
    """The part of the engine's input that the picture covers, in pixels; all of it for `stretch`."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True, slots=True, eq=False)
class Axis:
    """How one axis of a bilinear map reads its source: position p takes (1 - weight[p]) * s[low[p]] + weight[p] * s[high[p]].

    Positions in [cells[k], cells[k + 1]) lie between the centres of samples k-1 and k; cells 0 and n, at the edges, have one
    sample only. `low`, `high` int32 (n_out,), `weight` float32 (n_out,), 0 at the edges; `cells` int32 (n_in + 2,).
    """

    low: NDArray[np.int32]
    high: NDArray[np.int32]
    weight: NDArray[np.float32]
    cells: NDArray[np.int32]
    padded_weight: NDArray[np.float32]


#: How the rows and the columns of a bilinear map read their source.
Axes = tuple[Axis, Axis]


def window(size: Size, input_size: Size, resize: Resize) -> Window:
    """A frame's (H, W) and the engine's -> where the resized picture lies in the engine's input."""
    height, width = input_size
    if resize == "stretch":
        return Window(0, 0, height, width)
    ratio = min(height / size[0], width / size[1])
    inner_height = min(height, max(1, round(size[0] * ratio)))
    inner_width = min(width, max(1, round(size[1] * ratio)))
    return Window((height - inner_height) // 2, (width - inner_width) // 2, inner_height, inner_width)


def input_axes(size: Size, part: Window, corners: bool = False) -> Axes:
    """Rows and columns of the picture in the engine's input, read from a frame of (H, W) `size`."""
    if corners:
        return corner_axis(size[0], part.height), corner_axis(size[1], part.width)
    return axis(size[0], part.height, size[0] / part.height), axis(size[1], part.width, size[1] / part.width)


def output_steps(grid: Size, size: Size, input_size: Size, resize: Resize, corners: bool = False) -> tuple[Axes, ...]:
    """The maps, one or two, that read a frame of (H, W) `size` from logits of (h, w) `grid` over the engine's whole input, in order.

    With `corners` a grid that is smaller than the input is first read at the input's size. A grid that has that size already, or a
    frame that has it, takes one step.
    """
    if not corners:
        return (output_axes(grid, size, input_size, resize),)
    steps: list[Axes] = []
    if grid[0] < input_size[0] or grid[1] < input_size[1]:
        steps.append((corner_axis(grid[0], input_size[0]), corner_axis(grid[1], input_size[1])))
        grid = input_size
    part = window(size, input_size, resize)
    if not steps or part != Window(0, 0, *size):
        rows = _corners_of(part.top, part.height, input_size[0], grid[0])
        columns = _corners_of(part.left, part.width, input_size[1], grid[1])
        steps.append((corner_axis(grid[0], size[0], *rows), corner_axis(grid[1], size[1], *columns)))
    return tuple(steps)


def output_axes(grid: Size, size: Size, input_size: Size, resize: Resize) -> Axes:
    """Rows and columns of a frame of (H, W) `size`, read with half-pixel centres from logits of (h, w) `grid` over the whole input."""
    part = window(size, input_size, resize)
    rows = grid[0] / input_size[0]  # logits per pixel of the input
    columns = grid[1] / input_size[1]
    return (
        axis(grid[0], size[0], part.height / size[0] * rows, part.top * rows),
        axis(grid[1], size[1], part.width / size[1] * columns, part.left * columns),
    )


@lru_cache(maxsize=64)
def axis(samples: int, positions: int, scale: float, start: float = 0.0) -> Axis:
    """The map from `positions` places to `samples` samples: place p's centre lies at start + (p + 0.5) * scale of the samples' axis."""
    at = start + (np.arange(positions) + 0.5) * scale - 0.5
    return _axis_at(samples, np.clip(at, -0.5, samples - 0.5))


@lru_cache(maxsize=64)
def corner_axis(samples: int, positions: int, first: float = 0.0, last: float | None = None) -> Axis:
    """The map from `positions` places to `samples` samples whose outermost places lie on the samples `first` and `last` (None: the last).

    A single place lies on `first`.
    """
    at = _spread(positions, first, samples - 1 if last is None else last)
    return _axis_at(samples, np.clip(at, 0, samples - 1))


def _spread(positions: int, first: float, last: float) -> NDArray[np.float64]:
    """Evenly spread places: the first lies at `first`, the last, if there is another, at `last`. Whole numbers come out whole."""
    places: NDArray[np.float64] = first + np.arange(positions) * (last - first) / max(1, positions - 1)
    return places


def _corners_of(start: int, length: int, input_length: int, samples: int) -> tuple[float, float]:
    """Where the outermost pixels of a window in the input lie among `samples` samples that cover the input from corner to corner."""
    steps = max(1, input_length - 1)
    return start * (samples - 1) / steps, (start + length - 1) * (samples - 1) / steps


def _axis_at(samples: int, at: NDArray[np.float64]) -> Axis:
    """The map to places at `at`, ascending, in the samples' own coordinates, where sample i lies at i."""
    below = np.floor(at).astype(np.int32)
    low, high = np.clip(below, 0, samples - 1), np.clip(below + 1, 0, samples - 1)
    weight = np.where(low == high, 0.0, at - below).astype(np.float32)
    cells = np.searchsorted(below + 1, np.arange(samples + 2)).astype(np.int32)
    result = Axis(low, high, weight, cells, np.pad(weight, (0, WEIGHT_PADDING)))
    for table in (low, high, weight, cells, result.padded_weight):
        table.flags.writeable = False  # shared by every caller
    return result


def cell_at(axis: Axis) -> NDArray[np.int32]:
    """For each position of an axis the cell that holds it, int32 (n_out,)."""
    return np.repeat(np.arange(axis.cells.size - 1, dtype=np.int32), np.diff(axis.cells))


def nearest_labels(grid: Size, size: Size, input_size: Size, resize: Resize, corners: bool = False) -> tuple[Indices, Indices]:
    """For the rows and the columns of a frame of (H, W) `size` the nearest of a label map (h, w) `grid` over the engine's input."""
    part = window(size, input_size, resize)
    sides = zip(grid, size, input_size, (part.top, part.left), (part.height, part.width), strict=True)
    rows, columns = (_nearest(*side, corners) for side in sides)
    return rows, columns


def _nearest(samples: int, positions: int, input_length: int, start: int, length: int, corners: bool) -> Indices:
    """For each of `positions` places of a side the index of the nearest sample; between two, the later one."""
    if corners:
        at = np.floor(_spread(positions, *_corners_of(start, length, input_length, samples)) + 0.5)
    else:
        share = samples / input_length  # samples per pixel of the input
        at = np.floor(start * share + (np.arange(positions) + 0.5) * (length / positions * share))
    indices: Indices = np.clip(at, 0, samples - 1).astype(np.intp)
    return indices
