"""NaN and infinity in a calibration: the first tensor that has them, and why; a mask of infinity is none of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from elsewhere_models import CHANNELS, SIZE, Maker, foreign, image, ranges_of_run

from rtformer_deploy.calibrate import OBSERVERS, choose_amax
from rtformer_deploy.calibrate.histogram import Histogram
from rtformer_deploy.errors import CalibrationError


def _join(make: Maker, extra: str) -> str:
    return make.add("Concat", ["features", extra], "joined", axis=1)


def logarithm(shift: float) -> Callable[[Maker], str]:
    def build(make: Maker) -> str:
        make.features()
        make.add("Add", ["features", make.constant("shift", np.float32(shift))], "shifted")
        make.add("Log", ["shifted"], "log")
        return _join(make, make.add("Mul", ["log", make.constant("none", np.float32(0))], "zero"))

    return build


def division(make: Maker) -> str:
    make.features()
    return _join(make, make.add("Div", ["features", make.constant("none", np.zeros((1, CHANNELS, 1, 1), np.float32))], "ratio"))


def root(make: Maker) -> str:
    make.features()
    return _join(make, make.add("Sqrt", [make.add("Neg", ["features"], "negative")], "root"))


def power(make: Maker) -> str:
    make.features()
    return _join(make, make.add("Pow", ["features", make.constant("exponent", np.float32(-1))], "inverse"))


def too_large(make: Maker) -> str:
    make.features()
    make.add("Mul", ["features", make.constant("up", np.float32(3e38))], "large")
    return _join(make, make.add("Mul", ["large", "large"], "larger"))


def broken(make: Maker) -> str:
    weights = np.ones((CHANNELS, CHANNELS, 1, 1), np.float32)
    weights[3, 2] = np.nan
    return _join(make, make.add("Conv", [make.features(), make.constant("w", weights)], "middle"))


def negative_variance(make: Maker) -> str:
    make.features()
    ones = np.ones(CHANNELS, np.float32)
    names = [make.constant(name, array) for name, array in (("scale", ones), ("bias", ones), ("mean", ones), ("variance", -ones))]
    return _join(make, make.add("BatchNormalization", ["features", *names], "normal"))


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (logarithm(0.0), r"log holds infinity on the image, .*: Log /log takes the logarithm of 0\."),
        (logarithm(-0.1), r"log holds NaN on the image, .*: Log /log takes the logarithm of a negative number"),
        (division, r"ratio holds NaN on the image, .*: Div /ratio divides by zero"),
        (root, r"root holds NaN on the image, .*: Sqrt /root takes the root of a negative number"),
        (power, r"inverse holds infinity on the image, .*: Pow /inverse raises 0 to a negative power"),
        (too_large, r"large holds infinity on the image, .*: Mul /large gives more than FP32 holds"),
        (broken, r"middle holds NaN on the image, .*: its weight w holds NaN"),
        (negative_variance, r"normal holds NaN on the image, .*: the variance of BatchNormalization /normal is negative"),
    ],
)
def test_the_first_tensor_and_the_cause_are_named(build: Callable[[Maker], str], told: str) -> None:
    make = Maker()
    model = foreign(make.finish(build(make), 2 * CHANNELS))
    with pytest.raises(CalibrationError, match=f"The tensor {told}"):
        ranges_of_run(model, image())


def test_a_mask_of_infinity_is_no_fault() -> None:
    make = Maker()
    make.features()
    make.add("Greater", ["features", make.constant("limit", np.float32(0.1))], "keep")
    make.add("Where", ["keep", "features", make.constant("fill", np.float32(-np.inf))], "masked")
    make.add("Reshape", ["masked", make.constant("flat", np.array([1, -1], np.int64))], "row")
    make.add("Softmax", ["row"], "weights", axis=-1)
    picture = make.constant("picture", np.array([1, CHANNELS, SIZE[0] // 2, SIZE[1] // 2], np.int64))
    make.add("Reshape", ["weights", picture], "attention")
    ranges = ranges_of_run(foreign(make.finish(_join(make, "attention"), 2 * CHANNELS)), image())
    assert ranges.amax["masked"] == ranges.amax["features"]
    assert 0 < ranges.amax["weights"] <= 1


@pytest.mark.parametrize("method", sorted(OBSERVERS))
@pytest.mark.filterwarnings("error")
def test_a_range_too_small_for_a_scale_is_zero(method: str) -> None:
    smallest = 127 * 2.0**-126
    for size, exists in ((1e-45, False), (1e-41, False), (0.9 * smallest, False), (1.1 * smallest, True), (1e-30, True)):
        histogram = Histogram()
        histogram.add(np.full(1000, size, np.float32))
        assert (choose_amax(histogram, method) > 0) is exists
    histogram.add(np.ones(10, np.float32))
    assert choose_amax(histogram, "minmax") == 1.0
