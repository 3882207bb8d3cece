"""The engine's input from a frame, and pictures from label maps: the geometry and the numbers."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtformer_deploy.errors import ImageError
from rtformer_deploy.image import frames as image
from rtformer_deploy.image import native
from rtformer_deploy.image.geometry import Window, window
from rtformer_deploy.types import IMAGENET_MEAN, IMAGENET_STD, Frame, Resize

MEAN, STD = np.array(IMAGENET_MEAN)[:, None, None], np.array(IMAGENET_STD)[:, None, None]


def frame_of(height: int, width: int, seed: int = 0) -> Frame:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def prepare(frame: Frame, size: tuple[int, int], resize: Resize = "stretch") -> np.ndarray:
    return image.preprocess(frame, size, IMAGENET_MEAN, IMAGENET_STD, resize)


@pytest.mark.parametrize(
    ("size", "input_size"),
    [((72, 128), (103, 205)), ((45, 60), (64, 128)), ((301, 403), (96, 64)), ((17, 33), (512, 16)), ((1, 1), (8, 8)), ((1, 9), (5, 1))],
)
def test_resize_is_opencvs_bilinear(path: str, size: tuple[int, int], input_size: tuple[int, int]) -> None:
    frame = frame_of(*size)
    expected = cv2.resize(frame.astype(np.float32), input_size[::-1], interpolation=cv2.INTER_LINEAR)
    found = (prepare(frame, input_size).astype(np.float64) * STD + MEAN) * 255
    np.testing.assert_allclose(found.transpose(1, 2, 0), expected.reshape(*input_size, 3), atol=255e-4, rtol=0)


def test_the_right_size_is_only_normalised(path: str) -> None:
    frame = np.stack(np.broadcast_arrays(np.arange(256), 255 - np.arange(256), 128), axis=-1).astype(np.uint8).reshape(16, 16, 3)
    exact = (frame.transpose(2, 0, 1) / 255 - MEAN) / STD
    np.testing.assert_allclose(prepare(frame, (16, 16)), exact, atol=1e-6, rtol=0)
    np.testing.assert_array_equal(prepare(frame, (16, 16), "letterbox"), prepare(frame, (16, 16)))


def test_preprocess_fills_what_it_is_given(path: str) -> None:
    frame, batch = frame_of(40, 30), np.full((2, 3, 32, 64), np.nan, np.float32)
    assert image.preprocess(frame, (32, 64), IMAGENET_MEAN, IMAGENET_STD, "letterbox", out=batch[1]).base is batch
    np.testing.assert_array_equal(batch[1], prepare(frame, (32, 64), "letterbox"))
    assert np.isnan(batch[0]).all()
    strided = np.empty((3, 32, 128), np.float32)[:, :, ::2]
    assert image.preprocess(frame, (32, 64), IMAGENET_MEAN, IMAGENET_STD, out=strided) is strided
    np.testing.assert_array_equal(strided, prepare(frame, (32, 64)))
    np.testing.assert_array_equal(prepare(frame[:, ::-1], (32, 64)), prepare(frame[:, ::-1].copy(), (32, 64)))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((40, 30), Window(0, 20, 32, 24)),
        ((10, 100), Window(13, 0, 6, 64)),
        ((32, 64), Window(0, 0, 32, 64)),
        ((1, 999), Window(15, 0, 1, 64)),
    ],
)
def test_letterbox_centres_the_picture(path: str, size: tuple[int, int], expected: Window) -> None:
    assert window(size, (32, 64), "letterbox") == expected
    frame = frame_of(*size)
    found = prepare(frame, (32, 64), "letterbox")
    inner = found[:, expected.top : expected.top + expected.height, expected.left : expected.left + expected.width]
    np.testing.assert_array_equal(inner, prepare(frame, (expected.height, expected.width)))
    assert np.count_nonzero(found) == np.count_nonzero(inner)  # zero after normalisation around it


@pytest.mark.parametrize("wrong", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8), "a.png"])
def test_what_is_no_frame_is_refused(wrong: Any) -> None:
    with pytest.raises(ImageError, match="RGB uint8"):
        image.preprocess(wrong, (8, 8), IMAGENET_MEAN, IMAGENET_STD)  # the point of the test: a caller without types


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.integers(1, 40)] * 4), st.sampled_from(["stretch", "letterbox"]), st.integers(1, 3))
def test_native_and_numpy_give_the_same_bits(sizes: tuple[int, int, int, int], resize: Resize, threads: int) -> None:
    if not native.available():
        pytest.skip("the native code is not compiled here")
    frame = frame_of(*sizes[:2], seed=sum(sizes))
    fast = image.preprocess(frame, sizes[2:], IMAGENET_MEAN, IMAGENET_STD, resize, threads=threads)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "_module", None)
        np.testing.assert_array_equal(fast, prepare(frame, sizes[2:], resize))


def test_resize_labels_takes_the_nearest() -> None:
    labels = np.arange(12, dtype=np.int64).reshape(3, 4)
    same = image.resize_labels(labels, (3, 4), (3, 4))
    assert same.dtype == np.uint8
    np.testing.assert_array_equal(same, labels)
    np.testing.assert_array_equal(image.resize_labels(labels, (6, 8), (3, 4)), labels.repeat(2, axis=0).repeat(2, axis=1))
    np.testing.assert_array_equal(image.resize_labels(labels, (1, 2), (3, 4)), [[5, 7]])
    own = labels.astype(np.uint8)
    assert not np.shares_memory(image.resize_labels(own, (3, 4), (3, 4)), own)


def test_resize_labels_cuts_the_letterbox_away() -> None:
    labels = np.zeros((32, 64), np.uint8)
    part = window((40, 30), (32, 64), "letterbox")
    labels[part.top : part.top + part.height, part.left : part.left + part.width] = 7
    assert (image.resize_labels(labels, (40, 30), (32, 64), "letterbox") == 7).all()


PALETTE = ((128, 64, 128), (244, 35, 232), (1, 2, 3))


def test_colourize() -> None:
    colours = image.colourize(np.array([[0, 1, 2, 3, 255]], np.uint8), PALETTE)
    np.testing.assert_array_equal(colours, [[*PALETTE, (0, 0, 0), (0, 0, 0)]])


def test_overlay() -> None:
    frame = np.array([[[0, 100, 255], [10, 11, 12]]], np.uint8)
    labels = np.array([[0, 2]], np.uint8)
    np.testing.assert_array_equal(image.overlay(frame, labels, PALETTE), [[[64, 82, 192], [6, 7, 8]]])  # halves up
    np.testing.assert_array_equal(image.overlay(frame, labels, PALETTE, alpha=0.0), frame)
    np.testing.assert_array_equal(image.overlay(frame, labels, PALETTE, alpha=1.0), [[PALETTE[0], PALETTE[2]]])
    np.testing.assert_array_equal(image.overlay(frame, labels, PALETTE, alpha=0.25), [[[32, 91, 223], [8, 9, 10]]])
    with pytest.raises(ValueError, match="labels"):
        image.overlay(frame, labels.T, PALETTE)
