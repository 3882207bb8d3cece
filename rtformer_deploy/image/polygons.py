"""Label maps to polygons along the pixels' edges, one for each connected area, with holes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import MissingPackageError
from ..types import LabelMap
from . import native
from .outlines import outlines

if TYPE_CHECKING:
    import shapely

#: The corners (n, 2) of a closed ring as (x, y) in pixels, the first not repeated; (0, 0) is the frame's upper left corner.
RingCorners = NDArray[np.float64]

_RING = np.dtype([("area", np.int64), ("label", np.int64), ("corners", np.int64), ("doubled", np.int64)])


@dataclass(frozen=True, slots=True, eq=False)
class Polygon:
    """One connected area of a class: pixels that share sides. `outer` runs clockwise on a screen, `holes` the other way.

    Rings lie on the pixels' edges and touch themselves and each other in points at most, so the polygon is valid as OGC means it.
    """

    label: int
    outer: RingCorners
    holes: tuple[RingCorners, ...] = ()

    @property
    def area(self) -> float:
        """The area in pixels, holes left out."""
        return ring_area(self.outer) + sum(map(ring_area, self.holes))


def polygons_of(labels: LabelMap, tolerance: float = 0.0) -> list[Polygon]:
    """A label map (H, W) -> its polygons, from the top left.

    At `tolerance` 0 they give the same label map when they are filled again. Above 0, corners are left out if the triangle with their
    neighbours is smaller than `tolerance` pixels squared (Visvalingam and Whyatt's rule); neighbours keep the same border, so there are
    neither gaps nor overlaps. Runs the native code if it is compiled, else Python, with the same result.
    Raises MissingPackageError if `tolerance` is above 0 and shapely is missing.
    """
    labels = np.ascontiguousarray(labels, np.uint8)
    nodes = tolerance > 0
    corners, rings = native.outlines(labels, nodes) if native.available() else outlines(labels, nodes)
    found = list(_assembled(np.frombuffer(corners, np.int32).reshape(-1, 2).astype(np.float64), np.frombuffer(rings, _RING)))
    return _simplified(found, tolerance) if nodes else found


def ring_area(ring: RingCorners) -> float:
    """The signed area of a ring in pixels: positive if it runs clockwise on a screen."""
    x, y = ring[:, 0], ring[:, 1]
    return float(x @ np.roll(y, -1) - np.roll(x, -1) @ y) / 2


def _simplified(polygons: Sequence[Polygon], tolerance: float) -> list[Polygon]:
    try:
        import shapely
    except ImportError as error:
        raise MissingPackageError("shapely", "polygons", "Simplifying polygons") from error
    shapes = [shapely.Polygon(polygon.outer, polygon.holes) for polygon in polygons]
    simpler = shapely.coverage_simplify(shapes, tolerance, simplify_boundary=False)
    return [_from_shape(polygon.label, shape) for polygon, shape in zip(polygons, simpler, strict=True)]


def _from_shape(label: int, shape: shapely.Polygon) -> Polygon:
    return Polygon(label, _turned(shape.exterior, 1), tuple(_turned(ring, -1) for ring in shape.interiors))


def _turned(shape: shapely.LinearRing, sign: int) -> RingCorners:
    """A closed ring -> its corners, none repeated, in the order that gives its area this sign."""
    ring = np.asarray(shape.coords, np.float64)[:-1]
    return ring if ring_area(ring) * sign > 0 else ring[::-1]


def _assembled(corners: RingCorners, rings: NDArray[np.void]) -> Iterator[Polygon]:
    """Rings of all areas -> polygons: each area has one outer ring, the one with a positive area."""
    ends = np.cumsum(rings["corners"]).tolist()
    outer: dict[int, tuple[int, RingCorners]] = {}
    holes: dict[int, list[RingCorners]] = {}
    start = 0
    for (area, label, _, doubled), end in zip(rings.tolist(), ends, strict=True):
        ring = corners[start:end]
        start = end
        if doubled > 0:
            outer[area] = label, ring
        else:
            holes.setdefault(area, []).append(ring)
    for area in sorted(outer):
        label, ring = outer[area]
        yield Polygon(label, ring, tuple(holes.get(area, ())))
