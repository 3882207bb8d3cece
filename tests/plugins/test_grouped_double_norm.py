"""grouped_double_norm.cu against float64: softmax over space, then over the sum of a group; and against the network's own layer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from kernel_calls import Float, KernelCalls, model_spec
from numpy.typing import NDArray

On = Callable[..., KernelCalls]

SHAPES = [((1, 1, 1), 1), ((1, 8, 7), 2), ((2, 24, 300), 3), ((1, 40, 1), 40), ((1, 96, 33), 2), ((1, 8, 5000), 1)]


def exact(x: NDArray[np.float32] | NDArray[np.float16], groups: int) -> NDArray[np.float64]:
    """x (B, C, N) -> the same in float64."""
    grouped = x.astype(np.float64).reshape(x.shape[0], groups, -1, x.shape[2])
    grouped = np.exp(grouped - grouped.max(3, keepdims=True))
    grouped /= grouped.sum(3, keepdims=True)
    return np.asarray((grouped / (grouped.sum(2, keepdims=True) + 1e-6)).reshape(x.shape))


def values(shape: tuple[int, int, int], kind: str) -> NDArray[np.float64]:
    rng = np.random.default_rng(shape[1] + shape[2])
    x = rng.standard_normal(shape)
    if kind == "large":
        return 1000 * x
    if kind == "one channel constant":
        x[:, 0] = 12.5
    return x


@pytest.fixture
def calls(on_host: On) -> KernelCalls:
    return on_host(model_spec((8, 8), (1, 1), 1))


@pytest.mark.parametrize(("shape", "groups"), SHAPES)
@pytest.mark.parametrize("kind", ["normal", "large", "one channel constant"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_against_float64(calls: KernelCalls, shape: tuple[int, int, int], groups: int, kind: str, dtype: Float) -> None:
    """FP32 inside: within 2e-5 of the value (the exponent of a difference of 1000s loses bits), and FP16's rounding on top."""
    x = values(shape, kind).astype(dtype)
    given, expected = calls.double_norm(x, groups), exact(x, groups)
    assert given.dtype == x.dtype
    assert np.isfinite(given).all()
    relative, absolute = (2e-5, 1e-30) if dtype == "float32" else (2**-11 + 2e-5, 2**-25)
    np.testing.assert_allclose(given.astype(np.float64), expected, rtol=relative, atol=absolute)


def test_against_the_networks_layer(calls: KernelCalls) -> None:
    torch = pytest.importorskip("torch")
    from rtformer_deploy.nn.layers import grouped_double_norm

    x = values((2, 16, 96), "normal").astype(np.float32)
    expected = grouped_double_norm(torch.from_numpy(x).reshape(2, 16, 8, 12), 4).reshape(2, 16, 96).numpy()
    np.testing.assert_allclose(calls.double_norm(x, 4), expected, rtol=1e-5)


def test_the_result_does_not_depend_on_the_slices(calls: KernelCalls) -> None:
    """However many multiprocessors share a group's positions, each position's sum is the same."""
    x = values((1, 6, 4500), "normal").astype(np.float32)
    gpu = calls.kernels._gpu
    results = []
    for gpu.properties.multiprocessor_count in (1, 3, 100):
        results.append(calls.double_norm(x, 1))
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_what_is_not_finite_stays_in_its_group(calls: KernelCalls) -> None:
    x = values((1, 8, 50), "normal").astype(np.float32)
    x[0, 5, 20] = np.nan
    x[0, 1, 3] = -np.inf  # a share of 0
    given = calls.double_norm(x, 4)
    assert np.isnan(given[0, 4:6]).all()
    rest = [0, 1, 2, 3, 6, 7]
    np.testing.assert_allclose(given[0, rest], exact(np.nan_to_num(x, nan=0.0, neginf=-np.inf), 4)[0, rest], rtol=1e-5)
