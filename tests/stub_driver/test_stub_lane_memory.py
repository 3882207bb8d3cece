"""A lane's memory while other lanes work: it grows and changes hands, and nothing waits for the other lanes."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import frames
from lane_lab import LaneLab, check
from tensorrt_lab import SIZES, TensorRTLab, assert_labels, read
from tensorrt_plans import make_engine

from rtformer_deploy.backends import open_engine
from rtformer_deploy.errors import EngineError
from rtformer_deploy.runtime.frame_runner import FrameRunner

#: Calls that may wait for all work in the context, or for a stream. (cuGraphExecDestroy frees a graph once it is not running any more.)
WAITING_CALLS = {
    "cuCtxSynchronize",
    "cuEventDestroy_v2",
    "cuEventSynchronize",
    "cuLibraryUnload",
    "cuMemFree_v2",
    "cuMemFreeHost",
    "cuModuleUnload",
    "cuStreamDestroy_v2",
    "cuStreamSynchronize",
}
GROWING = [(side, side + 8) for side in range(24, 124, 10)]
SHRINKING = [(height, 40) for height in range(29, 19, -1)]


@pytest.fixture
def few_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the fifth or sixth size on (1 and the largest batch), each new size takes the place of another."""
    monkeypatch.setattr("rtformer_deploy.lanes.memory.TABLES", 1)


def run_beside(runner: FrameRunner, sizes: list[tuple[int, int]]) -> None:
    """One after the other, in the lane that is free."""
    for turn, size in enumerate(sizes):
        (frame,) = frames(size, seed=turn)
        assert_labels(runner.result(runner.submit([frame])), [frame])


@pytest.mark.parametrize("sizes", [GROWING, [*SHRINKING, *SHRINKING]], ids=["growth", "eviction"])
def test_other_sizes_do_not_wait_for_a_busy_lane(machine: TensorRTLab, few_tables: None, sizes: list[tuple[int, int]]) -> None:
    given = frames(SIZES[0])
    with open_engine(make_engine(), lanes=2, graphs=False) as runner:
        busy = runner.submit(given)
        machine.driver.forget()
        run_beside(runner, sizes)
        assert machine.runs_done == len(sizes), "the other lane has not run yet"
        assert WAITING_CALLS.isdisjoint(machine.driver.calls())
        assert_labels(runner.result(busy), given)


def test_graphs_of_other_sizes_do_not_wait_either(machine: TensorRTLab, few_tables: None) -> None:
    with open_engine(make_engine(), lanes=2) as runner:
        busy = runner.submit(frames(SIZES[0]))
        machine.driver.forget()
        run_beside(runner, [size for size in (*GROWING, *SHRINKING) for _ in range(3)])
        assert machine.replayed() > 0
        assert machine.count("destroyed a graph") > 0
        assert WAITING_CALLS.isdisjoint(machine.driver.calls())
        assert_labels(runner.result(busy), frames(SIZES[0]))


def test_a_lane_that_closes_does_not_wait_for_another(machine: TensorRTLab) -> None:
    with open_engine(make_engine(), lanes=2, graphs=False) as runner:
        idle, busy = runner.submit(frames(SIZES[1])), runner.submit(frames(SIZES[0]))
        runner.result(idle)
        runner.sessions[0].close()
        assert machine.runs_done == 1, "the other lane has not run yet"
        assert_labels(runner.result(busy), frames(SIZES[0]))
    assert machine.live() == 0


def test_a_growth_that_fails_leaves_no_graph_in_memory_of_others(lane_lab: LaneLab) -> None:
    """There is no memory for the large frame. Whatever happened to the lane's own memory, a caller's is not written by an older graph."""
    small, large = (50, 70), (300, 400)
    runner = lane_lab.open()
    for seed in range(3):
        check(runner, frames(small, seed=seed))
    lane_lab.driver.memory_limit(lane_lab.driver.used() + 50_000)
    with pytest.raises(EngineError, match="CUDA_ERROR_OUT_OF_MEMORY"):
        runner.run(frames(large))
    lane_lab.driver.memory_limit(1 << 30)
    (theirs,) = frames(small, seed=9)
    array = lane_lab.on_gpu(theirs)
    for seed in range(3):
        check(runner, frames(small, seed=seed))
    np.testing.assert_array_equal(read(array), theirs)
    check(runner, frames(large))


def test_memory_for_reuse_is_bounded(machine: TensorRTLab) -> None:
    """Growth leaves smaller memory behind, on the GPU and in the host's pinned memory: all of it together no more than there is in use."""
    sides = range(8, 200, 3)
    with open_engine(make_engine(), graphs=False) as runner:
        before = machine.live()
        run_beside(runner, [(side, side) for side in sides])
        frame_and_labels = 4 * sides[-1] ** 2
        tables = 20 * 4096
        in_use = 2 * 2 * (frame_and_labels + tables)  # on both sides; sizes are rounded up to powers of two
        assert machine.live() - before < 2 * in_use
