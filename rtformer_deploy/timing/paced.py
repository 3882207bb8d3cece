"""Runs frames at a fixed rate, as a camera delivers them, and measures latency from when each is due, deadline misses and jitter."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import UsageError
from ..runtime.frame_runner import FrameRunner
from ..types import Frame, Progress, no_progress

LEAST_FRAMES = 3
PHASE = "paced"
POLICY = "no frame is dropped and one is in flight for each lane; a frame that is due while all lanes are busy waits, which counts"
JITTER = "p99 less p50 of the latencies; interval_std_ms is the standard deviation of the times between one result and the next"


@dataclass(frozen=True, slots=True)
class Paced:
    """The result of a paced run. Latencies in ms are from when a frame was due to its label map, in the order of the frames.

    `finished_s` says when each label map was there, in seconds after the first frame was due. `late_starts` counts the frames that
    had no free lane when they were due, `not_started` those that were due before the time was over and never got one: they too
    missed their deadline.
    """

    fps: float
    deadline_ms: float
    lanes: int
    latencies_ms: tuple[float, ...]
    finished_s: tuple[float, ...]
    late_starts: int
    not_started: int

    @property
    def due(self) -> int:
        """How many frames were due."""
        return len(self.latencies_ms) + self.not_started

    @property
    def misses(self) -> int:
        """How many of them were not done within the deadline. A latency equal to the deadline, to the nanosecond, is no miss."""
        return sum(latency > self.deadline_ms + 1e-6 for latency in self.latencies_ms) + self.not_started

    @property
    def jitter_ms(self) -> float:
        return self.percentile(99) - self.percentile(50)

    @property
    def interval_std_ms(self) -> float:
        """The standard deviation of the times between results, in the order in which they came."""
        return float(np.std(np.diff(np.sort(self.finished_s)))) * 1000

    @property
    def achieved_fps(self) -> float:
        """Results a second, from the first due frame to the last result."""
        return len(self.finished_s) / max(self.finished_s)

    def percentile(self, share: float) -> float:
        return float(np.percentile(self.latencies_ms, share))

    def to_json(self) -> dict[str, Any]:
        """fps, deadline_ms, frames_due, misses, miss_share, latency percentiles, jitter_ms, interval_std_ms, and what they mean."""
        return {
            "fps": self.fps,
            "achieved_fps": round(self.achieved_fps, 3),
            "deadline_ms": round(self.deadline_ms, 4),
            "lanes": self.lanes,
            "frames_due": self.due,
            "misses": self.misses,
            "miss_share": round(self.misses / self.due, 6),
            "late_starts": self.late_starts,
            "not_started": self.not_started,
            **{f"p{share}_ms": round(self.percentile(share), 4) for share in (50, 90, 99)},
            "max_ms": round(max(self.latencies_ms), 4),
            "jitter_ms": round(self.jitter_ms, 4),
            "interval_std_ms": round(self.interval_std_ms, 4),
            "conventions": {"latency": "from when a frame was due to its label map", "queue": POLICY, "jitter": JITTER},
        }

    def rows(self) -> list[tuple[str, str]]:
        """The figures for a table, as names and texts."""
        return [
            ("frames due", f"{self.due}, one every {1000 / self.fps:.2f} ms"),
            ("results a second", f"{self.achieved_fps:.2f}"),
            ("deadline", f"{self.deadline_ms:.2f} ms after a frame is due"),
            ("deadline misses", f"{self.misses} ({self.misses / self.due:.2%})"),
            ("late starts", f"{self.late_starts} found no free lane; {self.not_started} never started"),
            ("p50, p90, p99", ", ".join(f"{self.percentile(share):.2f}" for share in (50, 90, 99)) + " ms"),
            ("slowest", f"{max(self.latencies_ms):.2f} ms"),
            ("jitter, p99 - p50", f"{self.jitter_ms:.2f} ms"),
            ("interval deviation", f"{self.interval_std_ms:.2f} ms"),
        ]


@dataclass(slots=True)
class _Schedule:
    """Which frame is next, and the results so far; the lanes' threads share it."""

    period: float
    total: int
    seconds: float
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    progress: Progress
    begin: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)
    numbers: itertools.count[int] = field(default_factory=itertools.count)
    results: dict[int, tuple[float, float]] = field(default_factory=dict)  # frame -> (due, done), both since `begin`
    late: int = 0

    def take(self) -> int | None:
        """The next frame's number once it is due; None if no more frames should start."""
        with self.lock:
            number = next(self.numbers)
            now = self.clock() - self.begin
            if number >= self.total or (number >= LEAST_FRAMES and now >= self.seconds):
                return None
            due = number * self.period
            self.late += now > due + 1e-9 and number > 0
        while (rest := due - (self.clock() - self.begin)) > 1e-9:
            self.sleep(rest)
        return number

    def stop(self) -> None:
        """Starts no more frames."""
        with self.lock:
            self.numbers = itertools.count(self.total)

    def done(self, number: int) -> None:
        now = self.clock() - self.begin
        with self.lock:
            self.results[number] = (number * self.period, now)
            count = len(self.results)
            self.progress(PHASE, min(count, self.total), self.total)


def run_paced(
    runner: FrameRunner,
    frame: Frame,
    fps: float,
    *,
    seconds: float = 10.0,
    deadline_ms: float | None = None,
    progress: Progress = no_progress,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Paced:
    """A frame (H, W, 3) that is due every 1 / `fps` s, on an absolute schedule, for `seconds`, to a Paced.

    The deadline is the period unless `deadline_ms` says another. One thread a lane waits for a frame to be due, submits it and takes
    its label map, so that at most `lanes` are in flight. Warm the runner up first. Raises UsageError for a rate or a deadline of
    zero or less, and what the runner or `progress` raises.
    """
    if fps <= 0 or (deadline_ms is not None and deadline_ms <= 0):
        raise UsageError(f"{fps:g} frames a second with a deadline of {deadline_ms} ms: both must be above zero.")
    lanes = len(runner.sessions)
    total = max(LEAST_FRAMES, round(seconds * fps))
    schedule = _Schedule(1 / fps, total, seconds, clock, sleep, progress, begin=clock())
    if lanes == 1:
        _work(schedule, runner, frame)
    else:
        _work_together(schedule, runner, frame, lanes)
    results = [schedule.results[number] for number in sorted(schedule.results)]
    return Paced(
        fps=fps,
        deadline_ms=1000 / fps if deadline_ms is None else deadline_ms,
        lanes=lanes,
        latencies_ms=tuple((done - due) * 1000 for due, done in results),
        finished_s=tuple(done for _, done in results),
        late_starts=schedule.late,
        not_started=total - len(results),
    )


def _work_together(schedule: _Schedule, runner: FrameRunner, frame: Frame, lanes: int) -> None:
    """One thread a lane; the first error ends them all and is raised here."""
    errors: list[BaseException] = []

    def live() -> None:
        try:
            _work(schedule, runner, frame)
        except BaseException as error:  # kept for the caller, which raises it
            errors.append(error)
            schedule.stop()

    threads = [threading.Thread(target=live, name=f"{PHASE}-{lane}") for lane in range(lanes)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except BaseException:  # interrupted: frames in flight finish, no more are started
        schedule.stop()
        for thread in threads:
            thread.join()
        raise
    if errors:
        raise errors[0]


def _work(schedule: _Schedule, runner: FrameRunner, frame: Frame) -> None:
    """Runs one lane: takes the next frame until there is none."""
    while (number := schedule.take()) is not None:
        runner.result(runner.submit([frame]))
        schedule.done(number)
