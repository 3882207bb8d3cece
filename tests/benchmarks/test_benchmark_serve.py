"""What benchmarks/serve.py makes of what it measured."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from helpers import load_benchmark


@pytest.fixture(scope="module")
def bench(root: Path) -> ModuleType:
    return load_benchmark(root, "serve")


def row(throughput: float, p99: float | None) -> dict[str, Any]:
    return {"throughput": throughput, "p99_ms": p99}


def test_equal_p99_is_that_of_the_naive_endpoint_at_its_best(bench: ModuleType) -> None:
    rows = {
        "naive": {1: row(1.0, 900), 2: row(2.0, 1000), 4: row(1.9, 2000)},
        "ours-fp32": {1: row(2.0, 500), 2: row(3.0, 1000), 4: row(9.0, 1001)},
        "ours-int8": {1: row(5.0, 1500), 2: row(6.0, None)},
    }
    found = bench.at_equal_p99(rows)
    assert found["naive_best"] == {"throughput": 2.0, "p99_ms": 1000}
    assert found["ratios"] == {"ours-fp32": 1.5, "ours-int8": None}


def test_the_median_of_the_rounds_ratios_counts(bench: ModuleType) -> None:
    def rows(naive: float, ours: float) -> dict[str, Any]:
        return {"naive": {1: row(naive, 900)}, "ours-fp32": {1: row(ours, 500)}, "ours-int8": {1: row(ours, 901 if ours == 6 else 900)}}

    found = bench.ratios_of([rows(1.0, 2.0), rows(2.0, 6.0), rows(1.0, 1.5)])["at_equal_p99"]
    assert found["ours-fp32"] == {"ratio": 2.0, "rounds": [2.0, 3.0, 1.5], "goal": 1.2}
    assert found["ours-int8"] == {"ratio": None, "rounds": [2.0, None, 1.5], "goal": 2.0}


def test_percentiles_and_medians(bench: ModuleType) -> None:
    found = bench.percentiles([index / 1000 for index in range(101)])
    assert (found["p50_ms"], found["p99_ms"], found["max_ms"]) == pytest.approx((50, 99, 100))
    assert set(bench.percentiles([1.0]).values()) == {None}
    rounds = [
        {"throughput": value, "p50_ms": None, "p99_ms": value, "max_ms": 1, "client_cpu_s": 1, "server_cpu_s": 1} for value in (1, 5, 2)
    ]
    assert bench.medians(rounds)["throughput"] == 2
    assert bench.medians(rounds)["p50_ms"] is None
