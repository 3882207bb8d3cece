"""upsample_argmax is interpolate-then-argmax: at any stride, at the edges, on ties, on random and on real logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtformer_deploy.errors import EngineError
from rtformer_deploy.image import frames as image
from rtformer_deploy.image import upsample
from rtformer_deploy.image.geometry import output_axes, window
from rtformer_deploy.types import LabelMap, Resize

Size = tuple[int, int]


def interpolated(logits: np.ndarray, size: Size, input_size: Size, resize: Resize) -> np.ndarray:
    """The definition in float64, pixel by pixel of each axis: (C, h, w) -> (C, H, W)."""
    part = window(size, input_size, resize)
    values = logits.astype(np.float64)
    for axis, (start, length) in enumerate([(part.top, part.height), (part.left, part.width)]):
        samples = logits.shape[axis + 1]
        matrix = np.zeros((size[axis], samples))
        for position in range(size[axis]):
            in_input = start + (position + 0.5) * length / size[axis]
            at = min(max(in_input * samples / input_size[axis] - 0.5, 0.0), samples - 1.0)
            low = min(int(at), max(samples - 2, 0))
            matrix[position, low] += 1 - (at - low)
            matrix[position, min(low + 1, samples - 1)] += at - low
        values = np.moveaxis(np.tensordot(matrix, values, (1, axis + 1)), 0, axis + 1)
    return values


def assert_equal(labels: LabelMap, values: np.ndarray, bound: float) -> None:
    """As DESIGN.md defines Equal: a pixel may take another class only where the two best are within twice the difference."""
    assert labels.dtype == np.uint8
    assert labels.shape == values.shape[1:]
    taken = np.take_along_axis(values, labels[None].astype(np.intp), axis=0)[0]
    assert (values.max(axis=0) - taken).max() <= 2 * bound


def check(logits: np.ndarray, size: Size, input_size: Size, resize: Resize = "stretch") -> None:
    """Both paths, one and three threads, the reference and the definition agree."""
    found = image.upsample_argmax(logits, size, input_size, resize, threads=1)
    np.testing.assert_array_equal(found, image.upsample_argmax(logits, size, input_size, resize, threads=3))
    rows, columns = output_axes(logits.shape[1:], size, input_size, resize)
    np.testing.assert_array_equal(found, upsample.sparse_argmax(logits, rows, columns))
    values = interpolated(logits, size, input_size, resize)
    bound = 4e-6 * np.abs(logits).max() + 1e-44
    assert_equal(found, values, bound)
    reference = image.upsample_argmax_reference(logits, size, input_size, resize)
    assert_equal(reference, values, bound)
    y, x = np.nonzero(found != reference)  # only where rounding made a tie
    rounded = np.stack([upsample.interpolate_plane(plane, rows, columns) for plane in logits])
    np.testing.assert_array_equal(rounded[found[y, x], y, x], rounded[reference[y, x], y, x])


@settings(max_examples=120, deadline=None)
@given(
    st.integers(1, 7),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 70), st.integers(1, 70)),
    st.sampled_from([1, 2, 8, 32]),
    st.sampled_from(["stretch", "letterbox"]),
    st.sampled_from(["normal", "few values", "far apart", "tiny"]),
    st.integers(0, 2**32 - 1),
)
def test_any_grid_and_any_frame(classes: int, grid: Size, size: Size, stride: int, resize: Resize, kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((classes, *grid))
    if kind == "few values":
        logits = rng.integers(-1, 2, logits.shape).astype(np.float64)  # ties everywhere
    elif kind == "far apart":
        logits = logits * 10.0 ** rng.integers(-20, 20, (classes, 1, 1))
    elif kind == "tiny":
        logits = logits * 1e-40
    check(logits.astype(np.float32), size, (grid[0] * stride, grid[1] * stride), resize)


@pytest.mark.parametrize(
    ("grid", "size", "stride"),
    [
        ((32, 64), (256, 512), 8),
        ((32, 64), (90, 160), 8),  # not a multiple
        ((45, 60), (360, 480), 8),
        ((32, 64), (20, 30), 8),  # the frame is smaller than the grid
        ((1, 1), (7, 5), 8),
        ((1, 20), (33, 160), 8),
        ((20, 1), (160, 33), 8),
        ((5, 6), (1, 1), 8),
        ((40, 50), (40, 50), 1),  # full-size logits
        ((3, 4), (3 * 32, 4 * 32), 32),
    ],
)
@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_strides(grid: Size, size: Size, stride: int, resize: Resize) -> None:
    rng = np.random.default_rng(3)
    coarse = rng.standard_normal((19, -(-grid[0] // 4), -(-grid[1] // 4))).repeat(4, axis=1).repeat(4, axis=2)  # regions, as in a street
    logits = coarse[:, : grid[0], : grid[1]] + 0.2 * rng.standard_normal((19, *grid))
    check(logits.astype(np.float32), size, (grid[0] * stride, grid[1] * stride), resize)


def test_real_logits(shared: Path) -> None:
    for name in ("slim_1x3x256x512.npz", "slim_2x3x360x480.npz"):
        with np.load(shared / "golden" / name) as golden:
            height, width = golden["input"].shape[2:]
            for logits in golden["logits_lowres"]:
                assert upsample.mixed_share(logits) > 0.05
                for size in [(height, width), (height * 2 + 1, width * 2 - 1), (height // 3, width // 3)]:
                    check(logits, size, (height, width))


def test_golden_full_size_logits(path: str, shared: Path) -> None:
    """The network's own last step: its full-size logits' argmax."""
    with np.load(shared / "golden/slim_1x3x256x512.npz") as golden:
        found = image.upsample_argmax(golden["logits_lowres"][0], (256, 512), (256, 512))
        assert_equal(found, golden["logits"][0], 1e-5 * np.abs(golden["logits"]).max())
        assert (found == golden["logits"][0].argmax(axis=0)).mean() > 0.9999
        np.testing.assert_array_equal(
            image.upsample_argmax(golden["logits"][0], (256, 512), (256, 512)), golden["logits"][0].argmax(axis=0)
        )


def test_torch_agrees(path: str) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(5)
    for grid, size in [((16, 32), (128, 256)), ((15, 20), (77, 31)), ((40, 50), (13, 17)), ((1, 3), (9, 9))]:
        logits = rng.standard_normal((19, *grid)).astype(np.float32)
        values = torch.nn.functional.interpolate(torch.from_numpy(logits)[None], size=size, mode="bilinear", align_corners=False)[0]
        assert_equal(image.upsample_argmax(logits, size, (8 * grid[0], 8 * grid[1])), values.numpy(), 1e-4)


def test_a_class_that_leads_at_no_corner_may_win_inside(path: str) -> None:
    logits = np.array([[[10.0, 0.0]], [[0.0, 10.0]], [[9.0, 9.0]]], np.float32)
    labels = image.upsample_argmax(logits, (1, 16), (8, 16))
    np.testing.assert_array_equal(labels[0], [0] * 5 + [2] * 6 + [1] * 5)


def test_the_lowest_class_takes_a_tie(path: str) -> None:
    logits = np.zeros((5, 3, 4), np.float32)
    assert (image.upsample_argmax(logits, (24, 32), (24, 32)) == 0).all()
    logits[2] = logits[4] = 1
    assert (image.upsample_argmax(logits, (24, 32), (24, 32)) == 2).all()
    crossing = np.array([[[0.0, 1.0]], [[1.0, 0.0]]], np.float32)
    np.testing.assert_array_equal(image.upsample_argmax(crossing, (1, 3), (8, 16)), [[1, 0, 0]])  # they meet in the middle


def test_256_classes(path: str) -> None:
    logits = np.random.default_rng(0).standard_normal((256, 4, 5)).astype(np.float32)
    logits[255, 2:] = 9
    check(logits, (32, 40), (32, 40))
    assert image.upsample_argmax(logits, (32, 40), (32, 40)).max() == 255


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_refused(path: str, value: float) -> None:
    logits = np.zeros((3, 4, 5), np.float32)
    logits[1, 2, 3] = value
    with pytest.raises(EngineError, match="not finite"):
        image.upsample_argmax(logits, (32, 40), (32, 40))


def test_very_large_finite_logits_are_not(path: str) -> None:
    logits = np.full((3, 4, 5), 1e38, np.float32)
    logits[1] = 3e38
    assert (image.upsample_argmax(logits, (32, 40), (32, 40)) == 1).all()


@pytest.mark.parametrize("shape", [(4, 5), (257, 2, 2), (0, 2, 2), (3, 0, 2)])
def test_what_is_no_logits_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(EngineError, match="shape"):
        image.upsample_argmax(np.zeros(shape, np.float32), (8, 8), (8, 8))


def test_a_view_of_a_batch(path: str) -> None:
    batch = np.random.default_rng(1).standard_normal((2, 19, 8, 9)).astype(np.float32)
    expected = image.upsample_argmax(batch[1].copy(), (64, 72), (64, 72))
    np.testing.assert_array_equal(image.upsample_argmax(batch[1], (64, 72), (64, 72)), expected)
    turned = np.moveaxis(np.moveaxis(batch[1], 0, -1).copy(), -1, 0)
    np.testing.assert_array_equal(image.upsample_argmax(turned, (64, 72), (64, 72)), expected)
