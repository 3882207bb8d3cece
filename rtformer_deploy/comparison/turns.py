"""Contestants called in turn, round after round, so that what disturbs the machine falls on all alike; their ratios with their spread."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import comb
from typing import Literal

import numpy as np

from ..errors import DeployError
from .contestant import Contestant, Turn
from .processes import Process

#: Seconds between two turns, so that one's spinning threads do not run into the other's time.
PAUSE = 0.05
CONFIDENCE = 0.95
_WARMUP_SHARE, _MOST_WARMUP = 0.25, 0.5  # of a turn's seconds, and seconds: before each turn

#: What one round gave: each contestant's turn by its name. One that failed is missing from then on.
Round = Mapping[str, Turn]
#: Which latencies of a turn: of the engine alone, or of the whole way from a decoded frame to a label map.
Part = Literal["engine", "frame"]


@dataclass(slots=True)
class Standing:
    """The contestants that run, and why the others do not: their error by name."""

    running: dict[str, Process] = field(default_factory=dict)
    failed: dict[str, DeployError] = field(default_factory=dict)

    def close(self) -> None:
        for process in self.running.values():
            process.close()
        self.running.clear()

    def fail(self, name: str, error: DeployError) -> None:
        process = self.running.pop(name, None)
        if process is not None:
            process.close()
        self.failed[name] = error


def take_turns(
    contestants: Sequence[Contestant],
    frame_size: tuple[int, int],
    rounds: int,
    seconds: float,
    after: Callable[[Round], None],
    tell: Callable[[str, int, int], None] = lambda doing, done, total: None,
    earlier: Sequence[Round] = (),
    last: Callable[[Process], None] = lambda process: None,
) -> dict[str, DeployError]:
    """Opens every contestant in a process of its own and calls all of them in every round, until each that runs has `rounds` rounds.

    A turn warms up, then measures for `seconds`; the frame is the sample frame at `frame_size`. Each round is handed to `after`;
    `earlier` are those of an interrupted run, which count. `last` gets each process that still runs after the rounds. `tell` hears what
    is being done, which turn it is, and of how many. Returns why contestants failed, by name: the others go on. All processes are over
    when it returns or raises.
    """
    if all(_missing(rounds, earlier, [contestant.name]) == 0 for contestant in contestants):
        return {}
    standing = Standing()
    try:
        for number, contestant in enumerate(contestants):
            tell(f"opening {contestant.name}", number, len(contestants))
            try:
                standing.running[contestant.name] = Process(contestant, frame_size)
            except DeployError as error:
                standing.fail(contestant.name, error)
        missing = _missing(rounds, earlier, list(standing.running))
        for number in range(missing):
            turns = _round(standing, seconds, len(earlier) + number, (number, missing), tell)
            if turns:
                after(turns)
        _each(standing, last, tell)
    finally:
        standing.close()
    return standing.failed


def _each(standing: Standing, last: Callable[[Process], None], tell: Callable[[str, int, int], None]) -> None:
    processes = list(standing.running.values())
    for number, process in enumerate(processes):
        tell(f"after the rounds: {process.name}", number, len(processes))
        try:
            last(process)
        except DeployError as error:
            standing.fail(process.name, error)


def _missing(rounds: int, earlier: Sequence[Round], names: Sequence[str]) -> int:
    """How many more rounds all have to take so that each has enough."""
    return max((max(0, rounds - sum(name in each for each in earlier)) for name in names), default=0)


def _round(standing: Standing, seconds: float, number: int, this_of: tuple[int, int], tell: Callable[[str, int, int], None]) -> Round:
    """One round, each in another order: what comes after a large network finds other caches than what comes after a small one.

    `number` counts the rounds of earlier runs too, `this_of` is which round of this run it is, from 0, and of how many.
    """
    names = list(standing.running)
    start = number % max(1, len(names))
    turns: dict[str, Turn] = {}
    for done, name in enumerate(names[start:] + names[:start]):
        tell(f"round {number + 1}: {name}", this_of[0] * len(names) + done, this_of[1] * len(names))
        try:
            turns[name] = standing.running[name].turn(seconds, min(_MOST_WARMUP, _WARMUP_SHARE * seconds))
        except DeployError as error:
            standing.fail(name, error)
        time.sleep(PAUSE)
    return turns


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times another's speed a contestant has; above 1 is faster. The median of all rounds, and the bounds of `between`."""

    median: float
    low: float
    high: float


def frame_times(turn: Turn, part: Part) -> tuple[float, ...]:
    """The milliseconds that each step of a turn took for one frame."""
    steps = turn.engine_ms if part == "engine" else turn.frame_ms
    return tuple(step / turn.batch for step in steps)


def ratio(rounds: Sequence[Round], name: str, reference: str, part: Part) -> Ratio | None:
    """The speed of `name` over that of `reference`, by the median times of each round in which both ran; None without one."""
    both = [each for each in rounds if name in each and reference in each]
    if not both:
        return None
    ratios = [float(np.median(frame_times(each[reference], part)) / np.median(frame_times(each[name], part))) for each in both]
    return Ratio(float(np.median(ratios)), *between(ratios))


def between(values: Sequence[float]) -> tuple[float, float]:
    """Values measured again and again -> the interval that holds their median with a confidence of 95 %, if they are independent.

    It runs from the k-th smallest to the k-th largest value: the median lies below the k-th smallest if fewer than k of n values are
    below it, which has the probability that fewer than k of n tossed coins are heads. With fewer than six values it is their whole range,
    which holds the median less surely.
    """
    ordered, count = sorted(values), len(values)
    outside, rank = 0.0, 0
    for below in range(count // 2):
        outside += 2 * comb(count, below) / 2**count
        if outside > 1 - CONFIDENCE:
            break
        rank = below
    return ordered[rank], ordered[count - 1 - rank]
