"""What benchmarks/scale_model.py reckons and simulates, against what can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from helpers import load_benchmark


@pytest.fixture(scope="module")
def model(root: Path) -> ModuleType:
    return load_benchmark(root, "scale_model")


def test_a_billion_frames_by_hand(model: ModuleType) -> None:
    measured = model.Measured((1024, 2048), 25.0, 50.0, 400_000, 30_000, 2_000_000)
    driver = model.Driver(images=1000, plan_us=36, count_us=4, manifest_bytes=200, memory_bytes=500)
    found = model.reckon(measured, driver, nodes=100, price=0.5)
    assert found["node_hours"] == pytest.approx(1e9 / 25 / 3600)
    assert found["node_hours_without_overlays"] == found["node_hours"] / 2
    assert found["days_on_nodes"] == pytest.approx(1e9 / 25 / 3600 / 100 / 24)
    assert (found["terabytes_in"], found["terabytes_labels"], found["terabytes_overlays"]) == (400, 30, 2000)
    assert found["node_megabits_in"] == pytest.approx(25 * 0.4 * 8)
    assert found["node_megabits_out"] == pytest.approx(25 * 2.03 * 8)
    assert found["cost"] == pytest.approx(1e9 / 25 / 3600 / 2)
    assert (found["gigabytes_of_manifest"], found["driver_gigabytes_of_memory"]) == (200, 500)
    assert found["driver_hours_of_planning"] == pytest.approx(10)
    assert found["nodes_a_driver"] == pytest.approx(10_000)


def test_runs_that_are_too_short_to_tell_are_refused(model: ModuleType) -> None:
    assert model.rate(30, 4.0, 1.0) == 10
    for longer in (0.9, 1.0, 1.1):
        with pytest.raises(SystemExit, match="Give more --frames"):
            model.rate(30, longer, 1.0)


def test_without_failures_a_run_is_as_long_as_its_work(model: ModuleType) -> None:
    plan = model.Plan(frames=100_000, nodes=10, fps=50, task=100, jitter=0, start=0, lifetime=1e12, driver=0)
    found = model.simulate(plan)
    assert found.hours == pytest.approx(100_000 / 50 / 10 / 3600)
    assert (found.efficiency, found.failures, found.repeated) == (pytest.approx(1), 0, 0)


def test_a_driver_that_is_slower_than_the_nodes_sets_the_length(model: ModuleType) -> None:
    plan = model.Plan(frames=100_000, nodes=100, fps=50, task=100, jitter=0, start=0, lifetime=1e12, driver=1e-3)
    found = model.simulate(plan)
    assert found.hours * 3600 == pytest.approx(100_000 * 1e-3, rel=0.05)
    assert found.driver_busy > 0.95


def test_failures_cost_what_is_repeated_and_the_time_of_the_replacement(model: ModuleType) -> None:
    plan = model.Plan(frames=10_000_000, nodes=50, fps=50, task=1000, start=60, lifetime=1200, replace=120, driver=0)
    found = model.simulate(plan)
    lifetimes = found.hours * 3600 * plan.nodes / (plan.lifetime + plan.replace + plan.start)
    assert found.failures == pytest.approx(lifetimes, rel=0.3)
    up = plan.lifetime / (plan.lifetime + plan.replace + plan.start)
    assert found.efficiency == pytest.approx(up, abs=0.1)
    assert found.repeated == found.failures * plan.task // 2


def test_the_same_seed_gives_the_same_run(model: ModuleType) -> None:
    plan = model.Plan(frames=50_000, nodes=10, fps=50, task=100, lifetime=600)
    assert model.simulate(plan) == model.simulate(plan) != model.simulate(replace(plan, seed=1))
