"""Histograms of parts of the values add up to the histogram of all of them, whatever their order."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rtformer_deploy.calibrate.histogram import Histogram


def histogram_of(*parts: NDArray[np.float32]) -> Histogram:
    histogram = Histogram()
    for part in parts:
        histogram.add(part)
    return histogram


def values_of(histogram: Histogram) -> tuple[object, ...]:
    return histogram.counts.tolist(), histogram.limit, histogram.largest, histogram.zeros, histogram.top


values = st.one_of(
    st.floats(0, 8, width=32, allow_subnormal=True),
    st.sampled_from([0.0, 1e-45, 2.0**-126, 0.5, 1.0, 2.0, 4.0, 3.4e38, 2.0**127]),  # edges of ranges and of FP32
)
parts_of_values = st.lists(st.lists(values, max_size=6), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(parts_of_values, st.randoms(use_true_random=False))
def test_histograms_of_parts_add_up_in_any_order(parts: list[list[float]], random: Any) -> None:
    arrays = [np.array(part, np.float32) for part in parts]
    whole = histogram_of(*arrays)
    shuffled = list(arrays)
    random.shuffle(shuffled)
    merged = Histogram()
    for part in shuffled:
        merged.merge(histogram_of(part))
    assert values_of(merged) == values_of(whole) == values_of(histogram_of(*shuffled))


def test_a_value_at_the_edge_counts_where_it_belongs_once_the_range_grows() -> None:
    edge, larger = np.array([1.0], np.float32), np.array([1.5], np.float32)
    assert values_of(histogram_of(edge, larger)) == values_of(histogram_of(larger, edge))
    assert histogram_of(edge, larger).counts[1024] == 1
