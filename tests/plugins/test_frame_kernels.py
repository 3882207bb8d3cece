"""preprocess.cu, upsample_argmax.cu, overlay.cu and nv12_to_rgb.cu give the bits of image/, at every size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_calls import Float, KernelCalls, Size, model_spec

from rtformer_deploy.image import frames as image
from rtformer_deploy.image.nv12 import nv12_to_rgb, yuv_factors
from rtformer_deploy.lanes.kernels import UPSAMPLE_FORMS
from rtformer_deploy.types import Resize

On = Callable[..., KernelCalls]

dtypes = st.sampled_from(["float32", "float16"])
forms = st.sampled_from(list(UPSAMPLE_FORMS))
each_form = pytest.mark.parametrize("form", UPSAMPLE_FORMS)
resizes = st.sampled_from(["stretch", "letterbox"])
seeds = st.integers(0, 2**32 - 1)


def sizes(height: int, width: int) -> st.SearchStrategy[Size]:
    return st.tuples(st.integers(1, height), st.integers(1, width))


def some_logits(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """Noise; blocks, most of whose cells agree; few levels, so that classes tie; levels around which rounding matters."""
    noise = rng.standard_normal(shape)
    if kind == "blocks":
        coarse = rng.standard_normal((*shape[:-2], -(-shape[-2] // 4), -(-shape[-1] // 4)))
        noise = 8 * coarse.repeat(4, -2).repeat(4, -1)[..., : shape[-2], : shape[-1]] + 0.1 * noise
    elif kind == "ties":
        noise = np.round(noise)
    elif kind == "close":
        noise = 1000 + np.round(noise) * 2**-13
    return noise.astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(size=sizes(70, 90), input_size=sizes(40, 70), resize=resizes, dtype=dtypes, seed=seeds)
def test_preprocess(on_host: On, size: Size, input_size: Size, resize: Resize, dtype: Float, seed: int) -> None:
    frames = np.random.default_rng(seed).integers(0, 256, (2, *size, 3), np.uint8)
    spec = model_spec(input_size, (1, 1), 1, resize)
    given = on_host(spec, dtype).preprocess(frames)
    for frame, planes in zip(frames, given, strict=True):
        expected = image.preprocess(frame, input_size, spec.mean, spec.std, resize).astype(dtype)
        np.testing.assert_array_equal(planes.view(np.uint8), expected.view(np.uint8))


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_a_frame_of_the_right_size_is_not_interpolated(on_host: On, resize: Resize) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (1, 37, 53, 3), np.uint8)
    spec = model_spec((37, 53), (1, 1), 1, resize)
    expected = image.preprocess(frames[0], (37, 53), spec.mean, spec.std)
    np.testing.assert_array_equal(on_host(spec).preprocess(frames)[0], expected)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_preprocess_writes_its_images_of_a_batch_alone(on_host: On, dtype: Float) -> None:
    frames = np.random.default_rng(1).integers(0, 256, (2, 20, 30, 3), np.uint8)
    calls = on_host(model_spec((16, 24), (2, 3), 1), dtype)
    whole = calls.preprocess(frames, index=1, batch=4)
    np.testing.assert_array_equal(whole[1:3], calls.preprocess(frames))
    assert (whole[[0, 3]].view(np.uint8) == 0xEE).all()


@settings(max_examples=120, deadline=None)
@given(
    size=sizes(80, 300),
    grid=sizes(11, 70),
    stride=st.sampled_from([1, 4, 8, 32]),
    classes=st.one_of(st.integers(1, 40), st.sampled_from([24, 25, 64, 65, 255, 256])),
    kind=st.sampled_from(["noise", "blocks", "ties", "close"]),
    resize=resizes,
    dtype=dtypes,
    form=forms,
    seed=seeds,
)
def test_upsample_argmax(
    on_host: On, size: Size, grid: Size, stride: int, classes: int, kind: str, resize: Resize, dtype: Float, form: str, seed: int
) -> None:
    input_size = grid[0] * stride, grid[1] * stride
    logits = some_logits(np.random.default_rng(seed), kind, (1, classes, *grid)).astype(dtype)
    labels, flag = on_host(model_spec(input_size, grid, classes, resize), "float32", dtype, form).upsample_argmax(logits, size)
    assert flag == 0
    np.testing.assert_array_equal(labels[0], image.upsample_argmax(logits[0].astype(np.float32), size, input_size, resize))


@each_form
@pytest.mark.parametrize("offset", [0, 3, 4])
@pytest.mark.parametrize("width", [264, 263])
def test_labels_may_lie_anywhere(on_host: On, width: int, offset: int, form: str) -> None:
    logits = some_logits(np.random.default_rng(2), "blocks", (1, 5, 8, 33))
    labels, _ = on_host(model_spec((64, 264), (8, 33), 5), "float32", "float32", form).upsample_argmax(logits, (64, width), offset=offset)
    np.testing.assert_array_equal(labels[0], image.upsample_argmax(logits[0], (64, width), (64, 264)))


@each_form
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_images_of_a_batch(on_host: On, dtype: Float, form: str) -> None:
    logits = some_logits(np.random.default_rng(3), "noise", (4, 7, 5, 6)).astype(dtype)
    labels, flag = on_host(model_spec((40, 48), (5, 6), 7), "float32", dtype, form).upsample_argmax(logits, (31, 45), index=1, count=2)
    assert flag == 0
    for index in range(2):
        expected = image.upsample_argmax(logits[1 + index].astype(np.float32), (31, 45), (40, 48))
        np.testing.assert_array_equal(labels[index], expected)


@each_form
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0, 0), (4, 7, 40), (2, 3, 20)])
@pytest.mark.parametrize("size", [(64, 328), (1, 1), (2, 500)])
def test_a_logit_that_is_not_finite_raises_the_flag(on_host: On, size: Size, place: tuple[int, int, int], value: float, form: str) -> None:
    """At any size: also where no pixel is made from that logit."""
    logits = np.zeros((1, 5, 8, 41), np.float32)
    calls = on_host(model_spec((64, 328), (8, 41), 5, "letterbox"), "float32", "float32", form)
    assert calls.upsample_argmax(logits, size)[1] == 0
    logits[(0, *place)] = value
    assert calls.upsample_argmax(logits, size)[1] == 1


@each_form
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("classes", [5, 30])
def test_many_logits_that_are_not_finite_do_not_keep_the_kernel_busy(on_host: On, classes: int, value: float, form: str) -> None:
    logits = np.random.default_rng(6).choice(np.array([value, 0], np.float32), (1, classes, 8, 9))
    assert on_host(model_spec((64, 72), (8, 9), classes), "float32", "float32", form).upsample_argmax(logits, (64, 72))[1] == 1


@each_form
def test_the_largest_finite_logits_are_finite(on_host: On, form: str) -> None:
    rng = np.random.default_rng(4)
    logits = (np.finfo(np.float32).max * rng.choice([-1, 1], (1, 3, 4, 4))).astype(np.float32)
    labels, flag = on_host(model_spec((32, 32), (4, 4), 3), "float32", "float32", form).upsample_argmax(logits, (32, 32))
    assert flag == 0
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(labels[0], image.upsample_argmax(logits[0], (32, 32), (32, 32)))


@settings(max_examples=40, deadline=None)
@given(size=sizes(30, 50), alpha=st.floats(0, 1), offset=st.integers(0, 4), count=st.integers(1, 2), seed=seeds)
def test_overlay(on_host: On, size: Size, alpha: float, offset: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (count, *size, 3), np.uint8)
    labels = rng.choice(np.array([0, 1, 2, 18, 19, 255], np.uint8), (count, *size))
    spec = model_spec((8, 8), (1, 1), 19)
    given = on_host(spec).overlay(frames, labels, alpha, offset)
    for index in range(count):
        np.testing.assert_array_equal(given[index], image.overlay(frames[index], labels[index], spec.palette, alpha))


@settings(max_examples=40, deadline=None)
@given(
    size=sizes(40, 60),
    turns=st.integers(0, 3),
    matrix=st.sampled_from([1, 2, 4, 6, 7, 9]),
    full=st.booleans(),
    padding=st.sampled_from([0, 1, 64]),
    seed=seeds,
)
def test_nv12_to_rgb(on_host: On, size: Size, turns: int, matrix: int, full: bool, padding: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    luma = rng.integers(0, 256, size, np.uint8)
    chroma = rng.integers(0, 256, (-(-size[0] // 2), -(-size[1] // 2), 2), np.uint8)
    factors = yuv_factors(matrix, full)
    given = on_host(model_spec((8, 8), (1, 1), 1)).nv12_to_rgb(luma, chroma, factors, turns, padding)
    np.testing.assert_array_equal(given, nv12_to_rgb(luma, chroma, factors, turns))
