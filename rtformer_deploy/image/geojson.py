"""Polygons as GeoJSON (RFC 7946). Coordinates are pixels, not degrees: x to the right, y down, (0, 0) the frame's upper left corner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .polygons import Polygon, RingCorners


def feature_collection(polygons: Sequence[Polygon], names: Sequence[str], properties: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Polygons and the classes' names -> a FeatureCollection with a Feature for each polygon whose id is a class's.

    A Feature's properties are its class_id, class and area in pixels, and `properties` (which frame, when).
    """
    return {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [_closed(ring) for ring in (polygon.outer, *polygon.holes)]},
                "properties": {"class_id": polygon.label, "class": names[polygon.label], "area": polygon.area, **(properties or {})},
            }
            for polygon in polygons
            if polygon.label < len(names)
        ],
    }


def _closed(ring: RingCorners) -> list[list[float]]:
    corners = [[int(value) if value.is_integer() else value for value in corner] for corner in ring.tolist()]
    return [*corners, corners[0]]
