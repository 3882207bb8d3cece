"""Pictures larger than the engine, tile by tile: where the tiles lie, and their logits joined to one label map."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..types import LabelMap, Resize
from .geometry import Size, Window
from .upsample import Reading, reading, upsample_argmax


def tile_windows(size: Size, tile: Size, overlap: int) -> list[Window]:
    """A frame's (H, W), a tile's and the least overlap in pixels -> the tiles, row by row, spread evenly.

    A tile is cut to the frame if that is smaller. Raises UsageError if the overlap is above three quarters of the
    tile's shorter side: the number of tiles grows with the square of 1 / (side - overlap), to one a pixel.
    """
    most = min(tile) * 3 // 4
    if not 0 <= overlap <= most:
        raise UsageError(f"Tiles of {tile[0]}x{tile[1]} cannot overlap by {overlap} pixels.", f"Choose 0 to {most}.")
    height, width = min(size[0], tile[0]), min(size[1], tile[1])
    tops, lefts = _starts(size[0], height, overlap), _starts(size[1], width, overlap)
    return [Window(top, left, height, width) for top in tops for left in lefts]


def join_tiles(
    size: Size,
    windows: Sequence[Window],
    logits: Sequence[NDArray[np.float32]],
    input_size: Size,
    resize: Resize,
    *,
    corners: bool = False,
    threads: int | None = None,
) -> LabelMap:
    """The tiles' logits (C, h, w) -> the frame's labels (H, W).

    Where tiles overlap, their interpolated logits are averaged, each with a weight that falls to its tile's edge; elsewhere the labels
    are those of the tile alone. Raises EngineError if a logit is NaN or infinite.
    """
    labels = np.empty(size, np.uint8)
    for part, values in zip(windows, logits, strict=True):
        place = labels[part.top : part.top + part.height, part.left : part.left + part.width]
        place[...] = upsample_argmax(values, (part.height, part.width), input_size, resize, corners=corners, threads=threads)
    tiles = [
        _Tile.of(part, reading(values, (part.height, part.width), input_size, resize, corners=corners), size)
        for part, values in zip(windows, logits, strict=True)
    ]
    rows = _edges((part.top, part.top + part.height) for part in windows)
    columns = _edges((part.left, part.left + part.width) for part in windows)
    for top, bottom in itertools.pairwise(rows):
        for left, right in itertools.pairwise(columns):
            covering = [tile for tile in tiles if tile.covers(top, left)]
            if len(covering) > 1:
                labels[top:bottom, left:right] = _blended(covering, (top, bottom), (left, right))
    return labels


@dataclass(frozen=True, slots=True, eq=False)
class _Tile:
    """A tile, how its pixels read its logits, and each row's and column's weight in an overlap."""

    part: Window
    read: Reading
    row_weight: NDArray[np.float32]
    column_weight: NDArray[np.float32]

    @classmethod
    def of(cls, part: Window, read: Reading, size: Size) -> _Tile:
        return cls(part, read, _ramp(part.top, part.height, size[0]), _ramp(part.left, part.width, size[1]))

    def covers(self, y: int, x: int) -> bool:
        part = self.part
        return part.top <= y < part.top + part.height and part.left <= x < part.left + part.width

    def plane(self, index: int, rows: slice, columns: slice) -> NDArray[np.float32]:
        """One class's logits at some rows and columns of the frame, times their weight."""
        weight = self.row_weight[rows, None] * self.column_weight[columns]
        return self.read.plane(index, rows, columns) * weight


def _blended(tiles: Sequence[_Tile], rows: tuple[int, int], columns: tuple[int, int]) -> LabelMap:
    """A rectangle that these tiles cover -> its labels: the argmax of the weighted mean, the lowest class on a tie."""
    parts = [
        (
            tile,
            slice(rows[0] - tile.part.top, rows[1] - tile.part.top),
            slice(columns[0] - tile.part.left, columns[1] - tile.part.left),
        )
        for tile in tiles
    ]
    labels = np.zeros((rows[1] - rows[0], columns[1] - columns[0]), np.uint8)
    best = np.full(labels.shape, -np.inf, np.float32)
    for index in range(tiles[0].read.logits.shape[0]):
        values = sum((tile.plane(index, *where) for tile, *where in parts), np.zeros(labels.shape, np.float32))
        wins = values > best
        best[wins] = values[wins]
        labels[wins] = index
    return labels


def _starts(size: int, tile: int, overlap: int) -> list[int]:
    """Where the tiles begin along one side: as few as overlap by at least `overlap`, spread evenly."""
    if size <= tile:
        return [0]
    steps = -(-(size - tile) // (tile - overlap))
    return [round(index * (size - tile) / steps) for index in range(steps + 1)]


def _ramp(start: int, length: int, size: int) -> NDArray[np.float32]:
    """A tile's weights along one side: the distance to its edge, but at the frame's edge, where no other tile is."""
    to_first = np.arange(1, length + 1) if start > 0 else np.full(length, length)
    to_last = np.arange(length, 0, -1) if start + length < size else np.full(length, length)
    nearer: NDArray[np.float32] = np.minimum(to_first, to_last).astype(np.float32)
    return nearer


def _edges(spans: Iterable[tuple[int, int]]) -> list[int]:
    """Where the set of tiles that cover a place changes, along one side."""
    return sorted({edge for span in spans for edge in span})
