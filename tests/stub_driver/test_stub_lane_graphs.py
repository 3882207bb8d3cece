"""CUDA graphs of lanes over real cuda.core: a context that is set otherwise, and captures that fail."""

from __future__ import annotations

import pytest
from helpers import frames
from lane_lab import LaneLab, check

from rtformer_deploy.runtime.frame_runner import FrameRunner

SIZE = (50, 70)


def graph_notes(runner: FrameRunner) -> list[str]:
    return [note for note in runner.notes if note.startswith("CUDA graphs:")]


def run_batches(runner: FrameRunner, *batches: int, times: int = 3) -> None:
    for turn, batch in enumerate(batches):
        for seed in range(times):
            check(runner, frames(*[SIZE] * batch, seed=10 * turn + seed))


def test_a_graph_runs_with_the_shape_that_it_was_captured_with(lane_lab: LaneLab) -> None:
    """Batch 1, then 4, then 1: the first graph's context must still be as it was."""
    runner = lane_lab.open()
    run_batches(runner, 1, 4, 1, 4)
    replays = lane_lab.driver.calls()["cuGraphLaunch"]
    run_batches(runner, 1, 4, times=1)
    assert lane_lab.driver.calls()["cuGraphLaunch"] == replays + 2
    assert graph_notes(runner) == []


def test_batches_without_a_graph_share_one_context(lane_lab: LaneLab) -> None:
    run_batches(lane_lab.open(), 1, 2, 3, 4, 1, 2, times=1)  # one after the other: no batch comes twice in a row, but each is seen
    assert lane_lab.engine.contexts <= 3
    run_batches(lane_lab.open(graphs=False), 1, 2, 3, 4, 1, 4, times=2)
    assert lane_lab.engine.contexts == 1


def test_without_memory_for_another_context_the_graphs_go(lane_lab: LaneLab) -> None:
    runner = lane_lab.open()
    lane_lab.engine.room = 1
    run_batches(runner, 1, 4, 1, 4, 2)
    assert lane_lab.engine.contexts == 1
    assert lane_lab.driver.calls()["cuGraphLaunch"] > 0
    assert graph_notes(runner) == [
        "CUDA graphs: they are captured again when the batch changes, since there is no memory for an execution context for each batch: "
        "TensorRT could not make an execution context; the GPU's memory may be full: [E] out of memory"
    ]


# A capture that fails.


def test_one_capture_may_fail(lane_lab: LaneLab) -> None:
    runner = lane_lab.open()
    lane_lab.engine.refusals = 1
    run_batches(runner, 1, times=5)
    assert graph_notes(runner) == []
    assert lane_lab.driver.calls()["cuStreamBeginCapture_v2"] == 2
    assert lane_lab.driver.calls()["cuGraphLaunch"] > 0


def test_a_capture_that_fails_twice_says_why_in_tensorrts_words(lane_lab: LaneLab) -> None:
    runner = lane_lab.open()
    lane_lab.engine.refusals = 100
    run_batches(runner, 1, times=5)
    assert graph_notes(runner) == [
        "CUDA graphs: 1 x 50x70 could not be captured and runs without: "
        "TensorRT could not start the engine: [E] layer 99 waits for its shape"
    ]
    assert lane_lab.driver.calls()["cuStreamBeginCapture_v2"] == 2
    assert "cuGraphLaunch" not in lane_lab.driver.calls()


@pytest.mark.parametrize("refusals", [1, 2])
def test_after_a_failed_capture_the_lane_works_and_can_be_closed(lane_lab: LaneLab, refusals: int) -> None:
    runner = lane_lab.open(2)
    lane_lab.engine.refusals = refusals
    run_batches(runner, 1, 2, 1, times=4)
    runner.close()
    assert lane_lab.driver.pending() == 0
