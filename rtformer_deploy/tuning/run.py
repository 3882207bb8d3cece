"""The measured part of `tune`: sensitivity, scores along the ladder, rounds of latencies; each measurement once, kept in the state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..types import Feedback, Progress
from .blocks import Block
from .measure import Reference, Workshop, alone, everything
from .points import Point, choose, key_of, summarise, within
from .search import Level, Levels, first_within, ladder, put_back, without_light
from .state import Record, State

ROUNDS = 5  # of latencies; an odd number, so that a median is one of them
TRIES = 5  # scored attempts to put a block back to INT8


@dataclass(frozen=True, slots=True)
class Tuned:
    """What a run found: each block with its error alone in INT8, the points (FP32 first), and the chosen one (None: no gate was met)."""

    blocks: tuple[tuple[Block, Record], ...]
    points: tuple[Point, ...]
    chosen: Point | None
    max_drop: float
    backend: str


class Run:
    """One run: what it measures with, and what it has measured (from the state, or now).

    `limit` is the frames of the sensitivity pass, `max_drop` in points of mIoU, `seconds` the time for an engine's latency.
    """

    def __init__(self, workshop: Workshop, state: State, *, limit: int, max_drop: float, seconds: float, feedback: Feedback) -> None:
        self.workshop, self.state, self.say, self.progress = workshop, state, feedback.say, feedback.progress
        self.limit, self.max_drop, self.seconds = limit, max_drop, seconds
        self.blocks = workshop.blocks
        self.reference: Reference | None = None
        self.errors = {(each["block"], each["level"]): each for each in state.of("error")}
        self.scored: dict[str, tuple[str, Levels, float]] = {
            each["key"]: (each["name"], each["levels"], each["miou"]) for each in state.of("point")
        }

    def search(self) -> Tuned:
        """The three steps."""
        high: Level = "fp16" if self.workshop.on_gpu else "fp32"
        single = everything(self.blocks, "fp32", "fp32")
        baseline = self.point("FP32", single)
        steps: tuple[Level, ...] = ("int8", high)
        if high == "fp16" and not self.within(everything(self.blocks, "fp16", "fp16"), "FP16"):
            steps = ("int8", "fp16", "fp32")
        self.sensitivity(steps)
        rungs = ladder(self.blocks, {pair: _worse(each) for pair, each in self.errors.items()}, steps)
        found = first_within(rungs, self.within)
        if found < len(rungs) - 1 or high == "fp16":
            best = put_back(rungs[found], self.blocks, "int8", self.within, TRIES)
            light = without_light(best, self.blocks, high)
            if light != best and "int8" in light.values():
                self.within(light)
        points = summarise(self.scored, self.rounds(), baseline)
        chosen = choose(points, self.max_drop)
        alone_int8 = tuple((block, self.errors[block.name, "int8"]) for block in self.blocks if block.convolutions)
        return Tuned(alone_int8, tuple(points), chosen, self.max_drop, self.workshop.backend)

    def sensitivity(self, steps: tuple[Level, ...]) -> None:
        """Each block alone on each of the steps but FP32, the others in the highest."""
        wanted = [(b.name, level) for level in steps if level != "fp32" for b in self.blocks if b.convolutions or level == "fp16"]
        if steps == ("int8", "fp16"):  # FP16 alone is within the bound: which block it is that errs in it does not matter
            wanted = [pair for pair in wanted if pair[1] == "int8"]
        for done, (name, level) in enumerate(wanted, 1):
            if (name, level) not in self.errors:
                error = self._reference().error(self.workshop.engine(alone(self.blocks, name, level, steps[-1])))
                record = {"kind": "error", "block": name, "level": level, "error": error.square, "flips": error.flips}
                self.state.add(record)
                self.errors[name, level] = record
            self._tell("sensitivity", done, len(wanted))

    def within(self, levels: Levels, name: str | None = None) -> bool:
        """Whether a mix, scored now or before, is within the bound; its score is said."""
        key = self.point(name or self._name(levels), levels)
        drop = 100 * (next(iter(self.scored.values()))[2] - self.scored[key][2])
        self.say(
            f"{self.scored[key][0]}, {self._count(levels)} blocks in INT8: mIoU {100 * self.scored[key][2]:.2f} %, drop {drop:.2f} points"
        )
        return within(drop, self.max_drop)

    def point(self, name: str, levels: Levels) -> str:
        """Scores a mix unless it is; its key."""
        key = key_of(levels)
        if key not in self.scored:
            miou = self.workshop.miou(key, levels, self._named(f"mIoU of {name}"))
            self.state.add({"kind": "point", "key": key, "name": name, "levels": levels, "miou": miou})
            self.scored[key] = name, levels, miou
        return key

    def rounds(self) -> list[dict[str, tuple[float, float]]]:
        """The rounds that timed everything that was scored; those that are missing are measured, each in another order."""
        keys = set(self.scored)
        found: list[dict[str, Any]] = [each["latencies"] for each in self.state.of("round") if set(each["latencies"]) == keys][:ROUNDS]
        while len(found) < ROUNDS:
            order = list(self.scored)
            turn = len(found) % len(order)
            points = {key: self.scored[key][1] for key in order[turn:] + order[:turn]}
            latencies = self.workshop.latencies(points, self.seconds / ROUNDS, self._timed(len(found), len(order)))
            self.state.add({"kind": "round", "latencies": latencies})
            found.append(latencies)
        return found

    def _timed(self, rounds: int, engines: int) -> Callable[[int], None]:
        return lambda done: self._tell("latency", rounds * engines + done, ROUNDS * engines)

    def _reference(self) -> Reference:
        if self.reference is None:
            single = self.workshop.engine(everything(self.blocks, "fp32", "fp32"))
            self.reference = Reference(self.workshop, single, self.workshop.frames(self.limit))
        return self.reference

    def _count(self, levels: Levels) -> int:
        return sum(levels[block.name] == "int8" for block in self.blocks)

    def _name(self, levels: Levels) -> str:
        if self._count(levels) == sum(bool(block.convolutions) for block in self.blocks) and "fp32" not in (
            levels[block.name] for block in self.blocks if self.workshop.on_gpu
        ):
            return "INT8"
        return f"mix {sum(name.startswith('mix') for name, _, _ in self.scored.values()) + 1}"

    def _named(self, phase: str) -> Progress:
        progress = self.progress
        return lambda _, done, total: progress(phase, done, total)

    def _tell(self, phase: str, done: int, total: int) -> None:
        self.progress(phase, done, total)


def _worse(record: dict[str, Any]) -> float:
    """The number that blocks are ordered by: the logits' error, or where there are only labels the changed pixels."""
    return float(record["flips"] if record["error"] is None else record["error"])
