"""Paced runs on an engine and a clock that the test owns: nothing here waits for real time."""

from __future__ import annotations

import heapq
import threading
from typing import Any

import numpy as np
import pytest
from helpers import CLASSES, SIZE, StoppedError, frames, stop, tiny_spec
from numpy.typing import NDArray

from rtformer_deploy.errors import EngineError, UsageError
from rtformer_deploy.runtime.cpu_session import CpuSession
from rtformer_deploy.runtime.frame_runner import FrameRunner
from rtformer_deploy.timing.paced import Paced, run_paced


class Clock:
    """Simulated seconds for a known number of threads: time goes on to the next waking once all that still run are asleep."""

    def __init__(self, threads: int = 1) -> None:
        self.now, self.threads = 0.0, threads
        self.seen: set[threading.Thread] = set()
        self.asleep: list[float] = []
        self.changed = threading.Condition()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        with self.changed:
            wake = self.now + seconds
            self.seen.add(threading.current_thread())
            heapq.heappush(self.asleep, wake)
            while self.now < wake:
                running = sum(thread.is_alive() for thread in self.seen)
                if len(self.seen) == self.threads and len(self.asleep) == running and self.asleep[0] > self.now:
                    self.now = self.asleep[0]
                    self.changed.notify_all()
                else:
                    self.changed.wait(0.01)  # a thread that ends tells nobody
            self.asleep.remove(wake)
            heapq.heapify(self.asleep)


class TimedEngine:
    """An engine session that takes the given seconds, in turn, of the clock."""

    def __init__(self, clock: Clock, *seconds: float) -> None:
        self.input: NDArray[np.float32] = np.zeros((1, 3, *SIZE), np.float32)
        self.clock, self.seconds, self.runs = clock, seconds, 0

    def start(self, batch: int) -> None:
        self.runs += 1

    def wait(self) -> NDArray[Any]:
        self.clock.sleep(self.seconds[(self.runs - 1) % len(self.seconds)])
        return np.zeros((1, CLASSES, SIZE[0] // 8, SIZE[1] // 8), np.float32)

    def close(self) -> None:
        self.input = np.empty(0, np.float32)


def runner_of(*engines: TimedEngine) -> FrameRunner:
    return FrameRunner([CpuSession(engine, tiny_spec()) for engine in engines], tiny_spec(), (1, 1, 1))


def paced(*engine: float, lanes: int = 1, fps: float = 50, seconds: float = 1.0, **options: Any) -> Paced:
    clock = Clock(lanes)
    runner = runner_of(*(TimedEngine(clock, *engine) for _ in range(lanes)))
    return run_paced(runner, frames(SIZE)[0], fps, seconds=seconds, clock=clock, sleep=clock.sleep, **options)


def test_an_engine_that_keeps_up_misses_nothing() -> None:
    found = paced(0.015)
    assert (found.due, found.misses, found.late_starts, found.not_started) == (50, 0, 0, 0)
    assert found.deadline_ms == 20
    assert found.latencies_ms == pytest.approx([15] * 50)
    assert found.jitter_ms == pytest.approx(0, abs=1e-6)
    assert found.interval_std_ms == pytest.approx(0, abs=1e-6)
    assert np.diff(found.finished_s) == pytest.approx([0.02] * 49)


def test_one_slow_frame_delays_the_next_and_the_schedule_stands() -> None:
    found = paced(0.01, 0.01, 0.05, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01, seconds=0.2)
    assert found.latencies_ms == pytest.approx([10, 10, 50, 40, 30, 20, 10, 10, 10, 10]), "due times do not move"
    assert found.misses == 3, "on the deadline is within it"
    assert found.late_starts == 3
    assert found.interval_std_ms > 5


def test_an_engine_that_cannot_keep_up_falls_behind_and_the_time_stays_bounded() -> None:
    found = paced(0.04)
    assert found.due == 50
    assert len(found.latencies_ms) == 25
    assert found.not_started == 25
    assert found.misses == 50
    assert found.latencies_ms[9] == pytest.approx(10 * 40 - 9 * 20), "latencies grow from frame to frame"
    assert found.achieved_fps == pytest.approx(25)


def test_two_lanes_keep_up_where_one_does_not() -> None:
    found = paced(0.03, lanes=2, deadline_ms=35)
    assert (found.lanes, found.misses, found.not_started) == (2, 0, 0)
    assert found.latencies_ms == pytest.approx([30] * 50)
    assert paced(0.03, lanes=2).misses == 50, "the period is the deadline where none is given"


def test_three_lanes_that_cannot_keep_up() -> None:
    found = paced(0.09, lanes=3)
    assert found.achieved_fps == pytest.approx(3 / 0.09, rel=0.1)
    assert found.not_started > 0
    assert found.late_starts > 25


@pytest.mark.parametrize("lanes", [1, 2])
def test_what_fails_ends_the_run(lanes: int) -> None:
    class Broken(TimedEngine):
        def wait(self) -> NDArray[Any]:
            super().wait()
            raise RuntimeError("out of order")

    clock = Clock(lanes)
    runner = runner_of(*(Broken(clock, 0.01) for _ in range(lanes)))
    with pytest.raises(EngineError, match="out of order"):
        run_paced(runner, frames(SIZE)[0], 50, clock=clock, sleep=clock.sleep)


def test_progress_counts_frames_and_can_stop() -> None:
    seen: list[tuple[str, int, int]] = []

    def watch(phase: str, done: int, total: int) -> None:
        seen.append((phase, done, total))

    paced(0.01, seconds=0.1, progress=watch)
    assert seen == [("paced", done, 5) for done in range(1, 6)]
    for lanes in (1, 2):
        with pytest.raises(StoppedError, match="paced"):
            paced(0.01, lanes=lanes, progress=stop)


def test_rates_and_deadlines_that_are_none() -> None:
    for options in ({"fps": 0}, {"fps": 30, "deadline_ms": -1}):
        with pytest.raises(UsageError):
            paced(0.01, **options)
