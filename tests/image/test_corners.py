"""Frames and logits from corner to corner (align_corners): equal to PyTorch, the same bits compiled and in NumPy, in parts and whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stdc_evaluation import corner_spec, normalised, resized

from rtformer_deploy.image import frames as image
from rtformer_deploy.image import native
from rtformer_deploy.image.confidence import confidence_map
from rtformer_deploy.image.geometry import corner_axis, output_steps, window
from rtformer_deploy.image.tiles import join_tiles, tile_windows
from rtformer_deploy.image.upsample import interpolated, reading, upsampled
from rtformer_deploy.types import IMAGENET_MEAN, IMAGENET_STD, Frame, Resize

Size = tuple[int, int]


def frame_of(size: Size, seed: int = 0) -> Frame:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def logits_of(size: Size, classes: int = 4, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).standard_normal((classes, *size)).astype(np.float32)


def prepare(frame: Frame, size: Size, resize: Resize = "stretch", threads: int | None = None) -> Any:
    return image.preprocess(frame, size, IMAGENET_MEAN, IMAGENET_STD, resize, corners=True, threads=threads)


@pytest.mark.parametrize(
    ("size", "input_size"), [((64, 96), (32, 48)), ((45, 60), (64, 31)), ((64, 96), (48, 72)), ((9, 1), (5, 4)), ((7, 8), (1, 1))]
)
def test_the_input_is_pytorchs_however_it_is_normalised(path: str, size: Size, input_size: Size) -> None:
    """PyTorch in float64 normalises first, then resizes; the bound is the one that `preprocess` states."""
    frame = frame_of(size)
    exact = resized(normalised(frame, corner_spec(), torch.float64), input_size)[0].numpy()
    bound = 16 * 2.0**-24 * (1 + np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    assert (np.abs(prepare(frame, input_size) - exact).max(axis=(1, 2)) <= bound).all()


def test_a_letterboxed_picture_reaches_the_corners_of_its_window(path: str) -> None:
    frame, part = frame_of((40, 30)), window((40, 30), (32, 64), "letterbox")
    found = prepare(frame, (32, 64), "letterbox")
    inner = found[:, part.top : part.top + part.height, part.left : part.left + part.width]
    np.testing.assert_array_equal(inner, prepare(frame, (part.height, part.width)))
    assert np.count_nonzero(found) == np.count_nonzero(inner)
    exact = normalised(frame, corner_spec())[0, :, [0, -1], [0, -1]].numpy()
    np.testing.assert_allclose(inner[:, [0, -1], [0, -1]], exact, atol=1e-5)


@pytest.mark.parametrize(
    ("grid", "input_size", "size"),
    [
        ((8, 12), (64, 96), (128, 192)),
        ((7, 5), (50, 33), (45, 70)),
        ((1, 3), (8, 20), (1, 40)),
        ((8, 12), (64, 96), (64, 96)),
        ((16, 24), (16, 24), (40, 50)),
        ((40, 60), (16, 24), (33, 35)),
    ],
)
def test_logits_are_read_at_the_inputs_size_then_at_the_frames(path: str, grid: Size, input_size: Size, size: Size) -> None:
    logits = logits_of(grid)
    values = torch.from_numpy(logits)[None].double()
    exact = resized(resized(values, input_size) if grid[0] < input_size[0] else values, size)[0].numpy()
    found = np.stack(list(upsampled(logits, size, input_size, corners=True)))
    assert np.abs(found - exact).max() <= 1e-6 * np.abs(logits).max()
    labels = image.upsample_argmax(logits, size, input_size, corners=True)
    np.testing.assert_array_equal(labels, image.upsample_argmax_reference(logits, size, input_size, corners=True))
    best = np.sort(exact, axis=0)[-2:]
    assert ((labels == exact.argmax(axis=0)) | (best[1] - best[0] < 1e-5)).all()
    shares = torch.from_numpy(exact).softmax(0).amax(0).numpy()
    sure = confidence_map(logits, size, input_size, corners=True)
    assert np.abs(sure - 255 * shares).max() <= 0.51


def test_logits_of_a_letterboxed_frame_are_read_from_its_window(path: str) -> None:
    size, input_size = (40, 30), (32, 64)
    logits, part = logits_of((4, 8)), window(size, input_size, "letterbox")
    between = resized(torch.from_numpy(logits)[None].double(), input_size)
    inner = between[:, :, part.top : part.top + part.height, part.left : part.left + part.width]
    found = np.stack(list(upsampled(logits, size, input_size, "letterbox", corners=True)))
    assert np.abs(found - resized(inner, size)[0].numpy()).max() <= 1e-5


@settings(max_examples=25, deadline=None)
@given(st.tuples(*[st.integers(1, 30)] * 4), st.integers(1, 9), st.sampled_from(["stretch", "letterbox"]), st.integers(1, 3))
def test_compiled_code_and_numpy_give_the_same_bits(sizes: tuple[int, int, int, int], stride: int, resize: Resize, threads: int) -> None:
    if not native.available():
        pytest.skip("the native code is not compiled here")
    size, input_size = sizes[:2], sizes[2:]
    logits, frame = logits_of((-(-input_size[0] // stride), -(-input_size[1] // stride)), 3, sum(sizes)), frame_of(size, sum(sizes))

    def results(threads: int | None = None) -> list[Any]:
        ways: dict[str, Any] = {"corners": True, "threads": threads}
        return [
            image.upsample_argmax(logits, size, input_size, resize, **ways),
            confidence_map(logits, size, input_size, resize, **ways),
            prepare(frame, input_size, resize, threads),
        ]

    fast = results(threads)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "_module", None)
        for one, other in zip(fast, results(), strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_part_of_a_frame_reads_what_the_whole_does() -> None:
    read = reading(logits_of((5, 7)), (61, 83), (40, 56), corners=True)
    whole = read.plane(2)
    for rows, columns in ((slice(0, 1), slice(82, 83)), (slice(13, 40), slice(5, 6)), (slice(20, 61), slice(None))):
        np.testing.assert_array_equal(read.plane(2, rows, columns), whole[rows, columns])


def test_labels_are_the_nearest_from_corner_to_corner() -> None:
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(image.resize_labels(labels, (3, 4), (3, 4), corners=True), labels)
    found = image.resize_labels(labels, (5, 7), (3, 4), corners=True)
    np.testing.assert_array_equal(found[:, 0], [0, 4, 4, 8, 8])  # rows at 0, 0.5, 1, 1.5, 2
    np.testing.assert_array_equal(found[0], [0, 1, 1, 2, 2, 3, 3])
    np.testing.assert_array_equal(image.resize_labels(labels, (1, 2), (3, 4), corners=True), [[0, 3]])
    double = labels.repeat(2, 0).repeat(2, 1)  # labels at the frame's size over a smaller input
    np.testing.assert_array_equal(image.resize_labels(double, (6, 8), (3, 4), corners=True), double)


def test_tiles_are_joined_as_each_is_read() -> None:
    size, tile, input_size = (70, 40), (40, 40), (20, 20)
    windows = tile_windows(size, tile, 10)
    logits = [logits_of((3, 3), seed=index) for index in range(len(windows))]
    labels = join_tiles(size, windows, logits, input_size, "stretch", corners=True)
    first = image.upsample_argmax(logits[0], tile, input_size, corners=True)
    np.testing.assert_array_equal(labels[:30], first[:30])
    planes = [np.stack(list(upsampled(each, tile, input_size, corners=True))) for each in logits]
    weight = np.arange(10, 0, -1)[:, None] / 11
    mixed = planes[0][:, 30:] * weight + planes[1][:, :10] * (1 - weight)
    best = np.sort(mixed, axis=0)[-2:]
    assert ((labels[30:40] == mixed.argmax(axis=0)) | (best[1] - best[0] < 1e-5)).all()


def test_outermost_samples_lie_on_each_other() -> None:
    whole = corner_axis(9, 17)
    assert (whole.low[0], whole.low[-1], whole.weight[0], whole.weight[-1]) == (0, 8, 0, 0)
    np.testing.assert_array_equal(whole.weight, [0, 0.5] * 8 + [0])
    assert corner_axis(9, 1).low.tolist() == [0]
    assert len(output_steps((8, 12), (128, 192), (64, 96), "stretch", corners=True)) == 2
    assert len(output_steps((8, 12), (64, 96), (64, 96), "stretch", corners=True)) == 1  # the second step would change nothing
    assert len(output_steps((64, 96), (128, 192), (64, 96), "stretch", corners=True)) == 1
    assert len(output_steps((8, 12), (128, 192), (64, 96), "stretch")) == 1


def test_every_instruction_set_interpolates_alike(module: Any) -> None:
    logits, rows, columns = logits_of((9, 11)), corner_axis(9, 66), corner_axis(11, 83)
    results = []
    for left_out in range(3):
        module.limit_instruction_set(left_out)
        results.append(interpolated(logits, rows, columns, threads=2))
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


@pytest.mark.parametrize(
    ("index", "value"),
    [(0, np.zeros(59, np.float32)), (1, 257), (2, 0), (4, np.zeros(3, np.float32)), (5, 2**31 - 1), (7, np.full(6, 4, np.int32)),
     (8, np.full(6, -1, np.int32)), (9, np.zeros(5, np.float32)), (10, np.full(8, 5, np.int32)), (11, np.zeros(7, np.int32)), (13, 0)],
)  # fmt: skip
def test_interpolate_refuses_what_does_not_fit(module: Any, index: int, value: Any) -> None:
    rows, columns = corner_axis(4, 6), corner_axis(5, 8)
    out = np.zeros((3, 6, 8), np.float32)
    arguments: list[Any] = [logits_of((4, 5), 3), 3, 4, 5, out, 6, 8]
    arguments += [rows.low, rows.high, rows.weight, columns.low, columns.high, columns.weight, 1]
    module.interpolate(*arguments)
    assert out.any()
    arguments[index] = value
    with pytest.raises(ValueError, match=r"."):
        module.interpolate(*arguments)
