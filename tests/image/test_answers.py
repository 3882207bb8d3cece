"""Areas, what is asked for of a label map, the legend, and label maps in colour."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rtformer_deploy.errors import ImageError, UsageError
from rtformer_deploy.image.areas import area_header, area_rows, class_areas
from rtformer_deploy.image.frames import overlay, save_png
from rtformer_deploy.image.legend import draw_legend
from rtformer_deploy.image.selection import IGNORED, Selection, class_ids, load_region, with_unsure
from rtformer_deploy.types import ModelSpec, TensorSpec

NAMES, PALETTE = ("road", "car", "tree, tall"), ((128, 64, 128), (0, 0, 142), (107, 142, 35))


def spec(classes: int) -> ModelSpec:
    names = tuple(f"c{index}" for index in range(classes))
    shape = TensorSpec("x", (1, 3, 8, 8), "float32")
    return ModelSpec("m", {"name": "rtformer"}, names, ((0, 0, 0),) * classes, shape, shape)


def test_areas_add_up_without_the_ignored_pixels() -> None:
    labels = np.array([[0, 0, 2, 255]], np.uint8)
    areas = class_areas(labels, NAMES)
    assert [(area.name, area.pixels) for area in areas] == [("road", 2), ("car", 0), ("tree, tall", 1)]
    assert [area.share for area in areas] == pytest.approx([2 / 3, 0, 1 / 3])
    assert class_areas(np.full((2, 2), 255, np.uint8), NAMES)[0].share == 0


def test_areas_are_csv_that_others_read() -> None:
    text = area_header() + area_rows('a "b", c.png', 1.5, class_areas(np.array([[2, 2]], np.uint8), NAMES))
    rows = list(csv.DictReader(text.splitlines()))
    assert rows[2] == {
        "frame": 'a "b", c.png',
        "time": "1.500000",
        "class_id": "2",
        "class": "tree, tall",
        "pixels": "2",
        "share": "1.000000",
    }


def test_a_selection_keeps_classes_a_region_and_what_is_certain() -> None:
    labels, sure = np.array([[0, 1, 2], [0, 1, 2]], np.uint8), np.array([[255, 100, 255], [10, 255, 255]], np.uint8)
    assert Selection(only=(0, 2)).apply(labels, 3).tolist() == [[0, 255, 2]] * 2
    assert Selection(region=np.array([[True, False, True], [False] * 3])).apply(labels, 3).tolist() == [[0, 255, 2], [255] * 3]
    assert Selection(least_confidence=0.5).apply(labels, 3, sure).tolist() == [[0, 3, 2], [3, 1, 2]]
    assert Selection(only=(0, 3), least_confidence=0.5).apply(labels, 3, sure).tolist() == [[0, 3, 255], [3, 255, 255]]
    with pytest.raises(ImageError, match=r"mask is 1x1 and the frame 2x3"):
        Selection(region=np.ones((1, 1), bool)).apply(labels, 3)


def test_class_names_are_looked_up_and_unknown_ones_refused() -> None:
    assert class_ids(("Car", " road"), NAMES) == (1, 0)
    with pytest.raises(UsageError, match="no class 'bus'"):
        class_ids(("bus",), NAMES)


def test_unsure_is_one_more_class_while_ids_last() -> None:
    assert with_unsure(spec(254)).classes[254] == "unsure"
    assert len(with_unsure(spec(3)).palette) == 4
    with pytest.raises(UsageError, match="no id is left"):
        with_unsure(spec(255))


def test_a_region_is_what_is_not_black(tmp_path: Path) -> None:
    save_png(tmp_path / "mask.png", np.array([[0, 255, 1]], np.uint8), mark=False)
    assert load_region(tmp_path / "mask.png").tolist() == [[False, True, True]]
    save_png(tmp_path / "black.png", np.zeros((2, 2), np.uint8), mark=False)
    with pytest.raises(ImageError, match="black everywhere"):
        load_region(tmp_path / "black.png")


def test_ignored_pixels_stay_as_they_are_in_the_overlay() -> None:
    frame = np.full((1, 2, 3), 200, np.uint8)
    drawn = overlay(frame, np.array([[0, IGNORED]], np.uint8), PALETTE)
    assert drawn[0, 1].tolist() == [200, 200, 200]
    assert drawn[0, 0].tolist() == [164, 132, 164]


def test_a_legend_shows_each_class_that_is_seen() -> None:
    labels = np.zeros((200, 320), np.uint8)
    labels[100:] = 2
    frame = np.zeros((200, 320, 3), np.uint8)
    drawn = draw_legend(frame, labels, NAMES, PALETTE)
    colours = {tuple(colour) for colour in drawn.reshape(-1, 3).tolist()}
    assert {PALETTE[0], PALETTE[2]} <= colours
    assert PALETTE[1] not in colours
    assert not frame.any()  # the picture itself is left alone
    assert drawn[:90].max() == 0


def test_a_legend_leaves_out_what_does_not_fit() -> None:
    labels = np.arange(3, dtype=np.uint8).repeat(20).reshape(3, 20)
    for height in (3, 40):
        frame = np.zeros((height, 20, 3), np.uint8)
        assert draw_legend(frame, np.resize(labels, (height, 20)), NAMES, PALETTE).shape == frame.shape


def test_a_label_map_in_colour_keeps_its_ids(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 2, 255]], np.uint8)
    save_png(tmp_path / "labels.png", labels, palette=PALETTE)
    with Image.open(tmp_path / "labels.png") as image:
        assert image.mode == "P"
        assert np.asarray(image).tolist() == [[0, 1, 2, 255]]
        assert np.asarray(image.convert("RGB")).tolist() == [[list(colour) for colour in (*PALETTE, (0, 0, 0))]]
