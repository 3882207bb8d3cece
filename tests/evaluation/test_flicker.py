"""Flicker: only pixels that stay the same count, by the class that they had; the picture is drawn."""

from __future__ import annotations

import numpy as np
import pytest

from rtformer_deploy.evaluation.flicker import Flicker, still_pixels
from rtformer_deploy.pictures.flicker import draw_flicker


def test_still_means_that_the_mean_difference_of_rgb_is_below_the_threshold() -> None:
    before = np.full((1, 4, 3), 100, np.uint8)
    frame = before.copy()
    frame[0, 1] = (111, 100, 100)  # 11 / 3
    frame[0, 2] = (88, 100, 100)  # 12 / 3
    frame[0, 3] = (0, 255, 100)
    assert still_pixels(before, frame, 4).tolist() == [[True, True, False, False]]


def test_pixels_that_change_class_count_for_the_class_that_they_had() -> None:
    flicker = Flicker(3)
    grey = np.full((2, 4, 3), 100, np.uint8)
    moved = grey.copy()
    moved[:, 3] = 200  # not still
    flicker.add(grey, np.array([[0, 0, 1, 1], [0, 0, 1, 1]], np.uint8), 0.0)
    flicker.add(moved, np.array([[0, 1, 1, 0], [0, 0, 1, 0]], np.uint8), 0.1)
    assert flicker.still.tolist() == [4, 2, 0]
    assert flicker.by_class() == [0.25, 0.0, None]
    assert flicker.share == pytest.approx(1 / 6)
    flicker.add(moved, np.array([[1, 1, 1, 0], [0, 0, 1, 0]], np.uint8), 0.2)
    assert list(flicker.times) == [0.1, 0.2]
    assert list(flicker.shares) == pytest.approx([1 / 6, 1 / 8])
    data = flicker.to_json(["a", "b", "c"])
    assert data["classes"]["c"] == {"still_pixels": 0, "share": None}
    assert data["share"] == pytest.approx(2 / 14)


def test_another_frame_size_begins_anew() -> None:
    flicker = Flicker(2)
    for size in ((2, 2), (3, 3), (3, 3)):
        flicker.add(np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8), 0.0)
    assert flicker.still.tolist() == [9, 0]
    assert Flicker(2).share is None


def test_the_picture_says_how_much() -> None:
    drawn = draw_flicker("clip & co", [0.0, 0.5, 1.0], [0.01, 0.03, 0.02], 0.02, 4)
    assert "2.00% of the still pixels" in drawn
    assert "clip &amp; co" in drawn
    assert "no still pixels" in draw_flicker("empty", [], [], None, 4)
