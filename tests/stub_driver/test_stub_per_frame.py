"""What a lane does for each frame once it is warm: these driver calls, and nothing that is looked up, opened or built."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from helpers import frames
from lane_lab import LaneLab, reference
from stub import StubDriver

from rtformer_deploy.runtime.frame_runner import FrameRunner

FRAMES = 10
SIZES = ((64, 96), (50, 70))
#: Making the GPU current in three calls: load, begin, take.
CURRENT = {"cuCtxGetCurrent": 3}
Work = Callable[[], object]


@contextmanager
def collections() -> Iterator[list[int]]:
    """The generations of the garbage collections inside."""
    seen: list[int] = []

    def collected(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            seen.append(info["generation"])

    gc.collect()
    gc.callbacks.append(collected)
    try:
        yield seen
    finally:
        gc.callbacks.remove(collected)


def host_frames(lab: LaneLab, runner: FrameRunner) -> Work:
    given = frames(*SIZES)
    return lambda: [runner.result(runner.submit([frame])) for frame in given]


def pinned_frames(lab: LaneLab, runner: FrameRunner) -> Work:
    return lambda: [runner.result(runner.submit([runner.frame(size)])) for size in SIZES]


def device_frames(lab: LaneLab, runner: FrameRunner) -> Work:
    given = [lab.on_gpu(frame, version=3, stream=int(lab.aside.handle)) for frame in frames(*SIZES)]
    return lambda: [runner.result(runner.submit([frame], on_device=True)) for frame in given]


def warm(lab: LaneLab, make: Callable[[LaneLab, FrameRunner], Work], *, graphs: bool = True) -> Work:
    """The work, whose sizes have been seen and whose graphs are captured; from now on the GPU takes no time."""
    work = make(lab, lab.open(graphs=graphs))
    for _ in range(4):
        work()
    lab.driver.mode("no work")
    return work


def calls_per_frame(driver: StubDriver, work: Work) -> dict[str, float]:
    driver.forget()
    for _ in range(FRAMES):
        work()
    return {name: count / (FRAMES * len(SIZES)) for name, count in driver.calls().items()}


@pytest.mark.parametrize("make", [host_frames, pinned_frames])
def test_a_frame_in_host_memory_is_one_launch(lane_lab: LaneLab, make: Callable[[LaneLab, FrameRunner], Work]) -> None:
    work = warm(lane_lab, make)
    assert calls_per_frame(lane_lab.driver, work) == {**CURRENT, "cuGraphLaunch": 1, "cuEventRecord": 1, "cuEventQuery": 1}


def test_a_frame_in_device_memory_makes_no_event(lane_lab: LaneLab) -> None:
    """Its address changes, so its preprocessing is launched beside the graph; its label map is memory of its own."""
    work = warm(lane_lab, device_frames)
    assert calls_per_frame(lane_lab.driver, work) == {
        "cuCtxGetCurrent": 3 + 1 + 2,  # for the checks of what the caller gave, and for the label map's memory and its end
        "cuPointerGetAttributes": 1,
        "cuStreamGetCtx": 1,
        "cuEventRecord": 3,  # the caller's stream, the frame was read, done
        "cuStreamWaitEvent": 2,  # for the caller, by the caller
        "cuLaunchKernelEx": 2,
        "cuGraphLaunch": 1,
        "cuMemsetD8Async": 1,
        "cuMemcpyAsync": 1,  # the flag
        "cuMemAllocFromPoolAsync": 1,
        "cuStreamIsCapturing": 1,
        "cuMemFreeAsync": 1,
        "cuEventQuery": 1,
    }


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("make", [host_frames, pinned_frames, device_frames])
def test_nothing_is_opened_or_made(
    lane_lab: LaneLab, make: Callable[[LaneLab, FrameRunner], Work], graphs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = warm(lane_lab, make, graphs=graphs)
    opened: list[Any] = []
    load = ctypes.CDLL.__init__

    def counted(self: ctypes.CDLL, *names: Any, **options: Any) -> None:
        opened.append(names)
        load(self, *names, **options)

    monkeypatch.setattr(ctypes.CDLL, "__init__", counted)
    lane_lab.cuda.made.clear()
    for _ in range(FRAMES):
        work()
    assert (opened, dict(lane_lab.cuda.made)) == ([], {})


@pytest.mark.parametrize(("make", "launches"), [(host_frames, 0), (pinned_frames, 0), (device_frames, 2)])
def test_a_thousand_frames_leave_no_garbage(lane_lab: LaneLab, make: Callable[[LaneLab, FrameRunner], Work], launches: int) -> None:
    """Python counts one object for each launch beside the graph, in cuda.core itself; nothing else adds to the count."""
    work = warm(lane_lab, make)
    work()
    with collections() as seen:
        for _ in range(1000 // len(SIZES)):
            work()
    assert len(seen) <= -(-1000 * launches // gc.get_threshold()[0])


def test_labels_are_right_when_sizes_take_turns(lane_lab: LaneLab) -> None:
    """Everything that is kept for one size is not taken for another."""
    runner = lane_lab.open()
    for turn in range(6):
        for frame in frames(*SIZES, seed=turn):
            np.testing.assert_array_equal(runner.run([frame])[0], reference(frame))
