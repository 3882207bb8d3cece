"""The rings around a label map's areas, in Python: what _native_outlines.hpp does, ring for ring. See there for the words."""

from __future__ import annotations

import numpy as np

from ..types import LabelMap

_WAYS = ((1, 0), (0, 1), (-1, 0), (0, -1))  # along an edge: right, down, left, up
_ENDS = ((1, 0), (1, 1), (0, 1), (0, 0))  # where an edge of pixel (0, 0) ends

Corner = tuple[int, int]  # (x, y)


def outlines(labels: LabelMap, nodes: bool) -> tuple[bytes, bytes]:
    """A label map (H, W) -> its rings' corners (int32 x, y) and its rings (int64 area, class, corners, doubled area).

    `nodes`: with a corner where two other areas meet on a straight edge, too.
    """
    height, width = labels.shape
    padded = np.full((height + 2, width + 2), -1, np.int16)
    padded[1:-1, 1:-1] = labels
    pixels: list[list[int]] = padded.tolist()
    areas = _areas(labels)
    seen: set[Corner] = set()
    corners: list[Corner] = []
    rings: list[tuple[int, int, int, int]] = []
    for y, x in np.argwhere(padded[1:-1, 1:-1] != padded[:-2, 1:-1]).tolist():
        if (x, y) not in seen:
            for ring in _trace(pixels, x, y, seen, nodes):
                corners += ring
                rings.append((areas[y][x], int(labels[y, x]), len(ring), _doubled(ring)))
    return np.array(corners, np.int32).tobytes(), np.array(rings, np.int64).tobytes()


def _areas(labels: LabelMap) -> list[list[int]]:
    """For each pixel the number of its area: that of the area's first run of equal pixels, row by row."""
    height, width = labels.shape
    starts = np.ones(labels.shape, bool)
    starts[:, 1:] = labels[:, 1:] != labels[:, :-1]
    runs = np.cumsum(starts).reshape(height, width) - 1
    parents = list(range(int(runs[-1, -1]) + 1))

    def find(run: int) -> int:
        while parents[run] != run:
            parents[run] = run = parents[parents[run]]
        return run

    pairs = np.stack([runs[:-1], runs[1:]], axis=-1)[labels[:-1] == labels[1:]]
    for upper, lower in np.unique(pairs, axis=0).tolist():
        one, other = sorted((find(upper), find(lower)))
        parents[other] = one
    first = np.array([find(run) for run in range(len(parents))])
    areas: list[list[int]] = first[runs].tolist()
    return areas


def _trace(pixels: list[list[int]], x: int, y: int, seen: set[Corner], nodes: bool) -> list[list[Corner]]:
    """Follows the ring that begins with the upper edge of pixel (x, y); cuts it where it meets itself in a point."""
    label, first, way = pixels[y + 1][x + 1], (x, y), 0
    path: list[Corner] = []
    done: list[list[Corner]] = []
    meetings: dict[Corner, int] = {}
    while True:
        if way == 0:
            seen.add((x, y))
        end = x + _ENDS[way][0], y + _ENDS[way][1]
        left = (way + 3) % 4
        ahead = x + _WAYS[way][0], y + _WAYS[way][1]
        beyond = ahead[0] + _WAYS[left][0], ahead[1] + _WAYS[left][1]
        beside = x + _WAYS[left][0], y + _WAYS[left][1]
        outside = pixels[beyond[1] + 1][beyond[0] + 1]
        if pixels[ahead[1] + 1][ahead[0] + 1] != label:
            if outside == label:
                _cut(path, meetings, end, done)
            path.append(end)
            way = (way + 1) % 4
        elif outside != label:
            if nodes and outside != pixels[beside[1] + 1][beside[0] + 1]:
                path.append(end)
            x, y = ahead
        else:
            path.append(end)
            (x, y), way = beyond, left
        if way == 0 and (x, y) == first:
            return [*done, path]


def _cut(path: list[Corner], meetings: dict[Corner, int], end: Corner, done: list[list[Corner]]) -> None:
    """The path is about to come to a point that it may have been at: what lies between is a ring of its own."""
    start = meetings.get(end)
    if start is not None and start < len(path) and path[start] == end:
        done.append(path[start:])
        del path[start:]
    meetings[end] = len(path)


def _doubled(ring: list[Corner]) -> int:
    """Twice the signed area of a ring."""
    return sum(one[0] * other[1] - other[0] * one[1] for one, other in zip(ring, [*ring[1:], ring[0]], strict=True))
