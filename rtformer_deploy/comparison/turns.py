"""Contestants called in turn, round after round, so that what disturbs the machine falls on all alike; their ratios with their spread."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import DeployError
from .contestant import Contestant, Turn
from .processes import Process

#: Seconds between two turns, so that one's spinning threads do not run into the other's time.
PAUSE = 0.05
_WARMUP = 0.5

#: What one round gave: each contestant's turn by its name. One that failed is missing from then on.
Round = Mapping[str, Turn]


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
    tell: Callable[[str], None] = lambda doing: None,
) -> dict[str, DeployError]:
    """Opens every contestant in a process of its own, calls each of them in every round for `seconds`, and hands each round to `after`.

    A turn warms up first; the frame is the sample frame at `frame_size`. `tell` hears what is being done. Returns why contestants failed,
    by name: the others go on. All processes are over when it returns or raises.
    """
    standing = Standing()
    try:
        for contestant in contestants:
            tell(f"opening {contestant.name}")
            try:
                standing.running[contestant.name] = Process(contestant, frame_size)
            except DeployError as error:
                standing.fail(contestant.name, error)
        for number in range(rounds):
            after(_round(standing, seconds, f"round {number + 1} of {rounds}", tell))
    finally:
        standing.close()
    return standing.failed


def _round(standing: Standing, seconds: float, which: str, tell: Callable[[str], None]) -> Round:
    turns: dict[str, Turn] = {}
    for name, process in list(standing.running.items()):
        tell(f"{which}: {name}")
        try:
            turns[name] = process.turn(seconds, _WARMUP)
        except DeployError as error:
            standing.fail(name, error)
        time.sleep(PAUSE)
    return turns


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times another's speed a contestant has: the median of all rounds, the smallest and the largest. Above 1 is faster."""

    median: float
    low: float
    high: float


def ratio(rounds: Sequence[Round], name: str, reference: str, what: Callable[[Turn], Sequence[float]]) -> Ratio | None:
    """The speed of `name` over that of `reference`, by the median latencies of each round in which both ran; None without one.

    `what` picks the latencies of a turn: of the engine, or of the whole frame.
    """
    both = [round_ for round_ in rounds if name in round_ and reference in round_]
    if not both:
        return None
    ratios = [float(np.median(what(round_[reference])) / np.median(what(round_[name]))) for round_ in both]
    return Ratio(float(np.median(ratios)), min(ratios), max(ratios))


def latencies(rounds: Sequence[Round], name: str, what: Callable[[Turn], Sequence[float]]) -> tuple[float, ...]:
    """All latencies of a contestant, in ms."""
    return tuple(value for round_ in rounds if name in round_ for value in what(round_[name]))
