"""What every observer must do, whatever range it chooses: within what was seen, deterministic, and nothing kept but the histogram."""

from __future__ import annotations

import numpy as np
import pytest

from rtformer_deploy.calibrate import OBSERVERS, observer
from rtformer_deploy.calibrate.histogram import BINS, Histogram
from rtformer_deploy.errors import CalibrationError


@pytest.fixture(params=sorted(OBSERVERS))
def method(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def shown(*arrays: np.ndarray) -> Histogram:
    histogram = Histogram()
    for array in arrays:
        histogram.add(array)
    return histogram


def test_a_range_is_within_what_was_seen(method: str) -> None:
    values = np.random.default_rng(0).standard_normal(200_000).astype(np.float32) * 3
    amax = observer(method)(shown(values))
    assert 3 < amax <= np.abs(values).max()


def test_the_order_of_the_batches_makes_no_difference(method: str) -> None:
    rng = np.random.default_rng(1)
    parts = [rng.standard_normal(5000).astype(np.float32) * size for size in (0.01, 7, 1, 130)]
    first, second = shown(*parts), shown(*reversed(parts))
    assert first.limit == second.limit
    assert abs(observer(method)(first) - observer(method)(second)) <= first.limit / BINS * 32


def test_scaling_the_values_scales_the_range(method: str) -> None:
    values = np.random.default_rng(2).laplace(size=100_000).astype(np.float32)
    assert observer(method)(shown(values * 8)) == pytest.approx(8 * observer(method)(shown(values)), rel=1e-6)


def test_zeros_tell_nothing(method: str) -> None:
    values = np.random.default_rng(3).standard_normal(50_000).astype(np.float32)
    padded = np.concatenate([values, np.zeros(500_000, np.float32)])
    assert observer(method)(shown(values)) == observer(method)(shown(padded))
    assert observer(method)(shown(np.zeros(10, np.float32))) == 0
    assert observer(method)(Histogram()) == 0


def test_one_value_alone_is_its_own_range(method: str) -> None:
    assert observer(method)(shown(np.full(100, -0.75, np.float32))) == pytest.approx(0.75, rel=0.02)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        shown(np.array([1.0, bad], np.float32))


def test_nothing_is_lost_when_the_histogram_grows() -> None:
    histogram = shown(*(np.full(10, 2.0**power, np.float32) for power in range(-10, 12)))
    assert histogram.counts.sum() == 220
    assert histogram.largest == 2.0**11
    assert histogram.counts.nbytes == 8 * BINS


def test_clipping_an_outlier_is_what_the_others_do() -> None:
    values = np.random.default_rng(4).standard_normal(400_000).astype(np.float32)
    values[0] = 60
    found = {name: choose(shown(values)) for name, choose in OBSERVERS.items()}
    assert found["minmax"] == 60
    assert max(found["entropy"], found["percentile"], found["mse"]) < 25


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(CalibrationError, match="magic"):
        observer("magic")
