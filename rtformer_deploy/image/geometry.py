"""Where the pixels of one grid lie in another: frame -> engine input, and logits -> frame.

All maps are bilinear with half-pixel centres: the centre of sample i lies at i + 0.5, and positions outside the grid take the
value at its edge. `stretch` maps the whole frame onto the whole input; `letterbox` scales it by the smaller of the two ratios and
centres it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..types import Resize

Size = tuple[int, int]  # (H, W)

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


def window(size: Size, input_size: Size, resize: Resize) -> Window:
    """A frame's (H, W) and the engine's -> where the resized picture lies in the engine's input."""
    height, width = input_size
    if resize == "stretch":
        return Window(0, 0, height, width)
    ratio = min(height / size[0], width / size[1])
    inner_height = min(height, max(1, round(size[0] * ratio)))
    inner_width = min(width, max(1, round(size[1] * ratio)))
    return Window((height - inner_height) // 2, (width - inner_width) // 2, inner_height, inner_width)


def input_axes(size: Size, part: Window) -> tuple[Axis, Axis]:
    """Rows and columns of the picture in the engine's input, read from a frame of (H, W) `size`."""
    return axis(size[0], part.height, size[0] / part.height), axis(size[1], part.width, size[1] / part.width)


def output_axes(grid: Size, size: Size, input_size: Size, resize: Resize) -> tuple[Axis, Axis]:
    """Rows and columns of a frame of (H, W) `size`, read from logits of (h, w) `grid` that cover the engine's whole input."""
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
    at = np.clip(at, -0.5, samples - 0.5)
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


def nearest(samples: int, positions: int, scale: float, start: float = 0.0) -> NDArray[np.intp]:
    """For each of `positions` places the index of the sample whose extent holds the place's centre."""
    at = np.floor(start + (np.arange(positions) + 0.5) * scale)
    indices: NDArray[np.intp] = np.clip(at, 0, samples - 1).astype(np.intp)
    return indices
