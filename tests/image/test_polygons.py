"""Polygons of label maps: filled again they are the label map; simplified they still cover it; in GeoJSON and COCO others read them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import shapely
from helpers import hide
from numpy.typing import NDArray
from pycocotools.coco import COCO

from rtformer_deploy.errors import MissingPackageError
from rtformer_deploy.image import native
from rtformer_deploy.image.coco import CocoFrames
from rtformer_deploy.image.geojson import feature_collection
from rtformer_deploy.image.outlines import outlines
from rtformer_deploy.image.polygons import Polygon, polygons_of, ring_area

NAMES = ("road", "car", "sky", "tree")


def label_maps() -> list[NDArray[np.uint8]]:
    """Small maps full of corners that touch, a ring in a ring, and one of blots."""
    draw = np.random.default_rng(3)
    maps = [draw.integers(0, draw.integers(1, 5), draw.integers(1, 14, 2), np.uint8) for _ in range(60)]
    target = np.zeros((15, 15), np.uint8)
    for inset in range(1, 7):
        target[inset:-inset, inset:-inset] = inset % 3
    blots = cv2.GaussianBlur(draw.standard_normal((60, 90, 4)), (0, 0), 3).argmax(axis=2).astype(np.uint8)
    return [*maps, target, blots]


def filled(polygons: list[Polygon], size: tuple[int, ...]) -> NDArray[np.uint8]:
    """The label map that polygons along the pixels' edges enclose, by the even-odd rule; each pixel is in one of them."""
    labels, times = np.zeros(size, np.uint8), np.zeros(size, int)
    for polygon in polygons:
        inside = np.zeros(size, bool)
        for ring in (polygon.outer, *polygon.holes):
            for (x, y), (next_x, next_y) in zip(ring.astype(int), np.roll(ring, -1, axis=0).astype(int), strict=True):
                if x == next_x:
                    inside[min(y, next_y) : max(y, next_y), x:] ^= True
        labels[inside], times = polygon.label, times + inside
    assert (times == 1).all()
    return labels


@pytest.mark.parametrize("compiled", [True, False])
def test_polygons_drawn_back_are_the_label_map(monkeypatch: pytest.MonkeyPatch, compiled: bool) -> None:
    if not compiled:
        monkeypatch.setattr(native, "_module", None)
    for labels in label_maps():
        polygons = polygons_of(labels)
        np.testing.assert_array_equal(filled(polygons, labels.shape), labels)
        assert all(polygon.area > 0 and all(ring_area(hole) < 0 for hole in polygon.holes) for polygon in polygons)
        areas = sum(cv2.connectedComponents((labels == index).astype(np.uint8), connectivity=4)[0] - 1 for index in range(4))
        assert len(polygons) == areas


def test_native_code_and_python_find_the_same_rings() -> None:
    if not native.available():
        pytest.skip("the native code is not compiled here")
    for index, labels in enumerate(label_maps()):
        assert native.outlines(labels, index % 2 == 0) == outlines(labels, index % 2 == 0)


@pytest.mark.parametrize("tolerance", [0, 0.5, 2])
def test_polygons_are_valid_and_neighbours_share_their_border(tolerance: float) -> None:
    for labels in label_maps():
        shapes = [shapely.Polygon(polygon.outer, polygon.holes) for polygon in polygons_of(labels, tolerance)]
        assert all(shape.is_valid for shape in shapes)
        assert sum(shape.area for shape in shapes) == pytest.approx(labels.size)
        assert tolerance == 0 or shapely.coverage_is_valid(shapes)


def test_a_tolerance_leaves_corners_out() -> None:
    blots = label_maps()[-1]
    exact, simple = (sum(len(polygon.outer) for polygon in polygons_of(blots, tolerance)) for tolerance in (0, 2))
    assert simple < exact / 2


def test_without_shapely_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "shapely")
    polygons_of(np.zeros((2, 2), np.uint8))
    with pytest.raises(MissingPackageError, match="shapely"):
        polygons_of(np.zeros((2, 2), np.uint8), 1)


def test_geojson_has_a_feature_for_each_polygon_of_a_class() -> None:
    labels = np.zeros((4, 5), np.uint8)
    labels[1:3, 1:3] = 1
    labels[0, 4] = 255
    document = json.loads(json.dumps(feature_collection(polygons_of(labels), NAMES, {"frame": "a.jpg"})))
    road, car = document["features"]
    assert road["properties"] == {"class_id": 0, "class": "road", "area": 15.0, "frame": "a.jpg"}
    assert car["geometry"]["coordinates"] == [[[3, 1], [3, 3], [1, 3], [1, 1], [3, 1]]]
    shape = shapely.from_geojson(json.dumps(road["geometry"]))
    assert isinstance(shape, shapely.Polygon)
    assert shape.area == 15
    assert shape.exterior.is_ccw  # as RFC 7946 asks for, with coordinates as they stand


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # inside pycocotools
def test_pycocotools_reads_the_same_masks(tmp_path: Path) -> None:
    maps = [labels for labels in label_maps() if labels.max() < 4][-4:]
    maps[0][0, 0] = 255
    frames = CocoFrames(NAMES)
    annotations = [each for index, labels in enumerate(maps) for each in frames.add(f"{index}.png", labels)]
    path = tmp_path / "coco.json"
    path.write_text(json.dumps({"images": frames.images, "categories": frames.categories, "annotations": annotations}))
    read = COCO(str(path))
    for index, labels in enumerate(maps, 1):
        again = np.full(labels.shape, 255, np.uint8)
        for annotation in read.loadAnns(read.getAnnIds(imgIds=[index])):
            mask = read.annToMask(annotation).astype(bool)
            again[mask] = annotation["category_id"]
            assert annotation["area"] == mask.sum()
            x, y, width, height = annotation["bbox"]
            assert mask[y : y + height, x : x + width].sum() == mask.sum()
        np.testing.assert_array_equal(again, labels)
