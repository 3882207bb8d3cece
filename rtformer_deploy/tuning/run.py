"""The measured part of `tune`: sensitivities, scores along the ladder, rounds of latencies; each measured once, and kept in the journal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from ..errors import GateError, UsageError
from ..types import Feedback, Progress
from .blocks import Block
from .journal import Journal
from .measure import Reference, Workshop, alone, everything
from .points import Point, choose, drop_of, is_allowed, key_of, summarise
from .records import Round, Score, Sensitivity
from .search import Level, Mix, first_within, ladder, put_back, without_light

ROUNDS = 5  # of latencies; an odd number, so that a median is one of them
TRIES = 5  # scored attempts to put a block back to INT8


@dataclass(frozen=True, slots=True)
class Tuned:
    """The result of a run: each block with its error alone in INT8, the points (FP32 first), and the chosen one (None: no gate was met)."""

    blocks: tuple[tuple[Block, Sensitivity], ...]
    points: tuple[Point, ...]
    chosen: Point | None
    max_drop: float
    backend: str


class Run:
    """One run: its tools, and its measurements, including earlier ones from the journal.

    `limit` is the frames of the sensitivity pass, `max_drop` in points of mIoU, `seconds` the time for an engine's latency.
    """

    def __init__(self, workshop: Workshop, journal: Journal, *, limit: int, max_drop: float, seconds: float, feedback: Feedback) -> None:
        self.workshop, self.journal, self.feedback = workshop, journal, feedback
        self.limit, self.max_drop, self.seconds = limit, max_drop, seconds
        self.blocks = workshop.blocks
        self.sensitivities = {(each.block, each.level): each for each in journal.sensitivities()}
        self.scores = {each.key: each for each in journal.scores()}
        if any(key_of(each.mix) != each.key or each.mix.keys() != {block.name for block in self.blocks} for each in self.scores.values()):
            raise UsageError(f"{journal.path} holds a mix of other blocks: it was changed.", "Choose another folder with --output.")

    def search(self) -> Tuned:
        """Measures the blocks one by one, finds how many have to leave INT8, puts back those that can return, and times every mix."""
        baseline = self.baseline
        levels = self.levels()
        self.measure_blocks(levels)
        rungs = ladder(self.blocks, {pair: each.rank for pair, each in self.sensitivities.items()}, levels)
        first = first_within(rungs, self.within)
        if first < len(rungs) - 1 or self.workshop.on_gpu:
            best = put_back(rungs[first], self.blocks, "int8", self.within, TRIES)
            light = without_light(best, self.blocks, levels[1])
            if light != best and "int8" in light.values():
                self.within(light)
        points = summarise(self.scores.values(), self.rounds(), baseline)
        chosen = choose(points, self.max_drop)
        in_int8 = tuple((block, self.sensitivities[block.name, "int8"]) for block in self.blocks if block.convolutions)
        return Tuned(in_int8, tuple(points), chosen, self.max_drop, self.workshop.backend)

    @cached_property
    def baseline(self) -> Score:
        """FP32's score; every drop is measured from it."""
        return self.score("FP32", everything(self.blocks, "fp32", "fp32"))

    def levels(self) -> tuple[Level, ...]:
        """The levels that blocks climb, INT8 first. On a GPU FP32 is one of them only if FP16 alone loses too much."""
        if not self.workshop.on_gpu:
            return "int8", "fp32"
        if self.within(everything(self.blocks, "fp16", "fp16"), "FP16"):
            return "int8", "fp16"
        return "int8", "fp16", "fp32"

    def measure_blocks(self, levels: tuple[Level, ...]) -> None:
        """Measures each block alone on each of the levels but FP32, the others on the highest."""
        pairs = [(b.name, level) for level in levels if level != "fp32" for b in self.blocks if b.convolutions or level == "fp16"]
        if levels == ("int8", "fp16"):  # FP16 alone is within the bound, so the errors of single blocks in FP16 do not matter
            pairs = [pair for pair in pairs if pair[1] == "int8"]
        for done, (name, level) in enumerate(pairs, 1):
            if (name, level) not in self.sensitivities:
                error = self.reference.error(self.workshop.engine(alone(self.blocks, name, level, levels[-1])))
                sensitivity = Sensitivity(name, level, error.square, error.flips)
                self.journal.add(sensitivity)
                self.sensitivities[name, level] = sensitivity
            self.feedback.progress("sensitivity", done, len(pairs))

    def within(self, mix: Mix, name: str | None = None) -> bool:
        """Whether a mix loses no more than is allowed; scores it first if needed, and reports the score."""
        score = self.score(name or self._name(mix), mix)
        drop = drop_of(score, self.baseline)
        self.feedback.say(f"{score.name}, {_in_int8(mix)} blocks in INT8: mIoU {100 * score.miou:.2f} %, drop {drop:.2f} points")
        return is_allowed(drop, self.max_drop)

    def score(self, name: str, mix: Mix) -> Score:
        """The mix's score, measured first if needed; `name` is used only for a mix without a score so far."""
        key = key_of(mix)
        if key not in self.scores:
            score = Score(key, name, mix, self.workshop.miou(key, mix, self._progress(f"mIoU of {name}")))
            self.journal.add(score)
            self.scores[key] = score
        return self.scores[key]

    def rounds(self) -> list[Round]:
        """The rounds that timed everything that was scored; missing rounds are measured now, each in another order."""
        rounds = [each for each in self.journal.rounds() if each.latencies.keys() == self.scores.keys()][:ROUNDS]
        while len(rounds) < ROUNDS:
            order = list(self.scores)
            turn = len(rounds) % len(order)
            mixes = {key: self.scores[key].mix for key in order[turn:] + order[:turn]}
            new_round = Round(self.workshop.latencies(mixes, self.seconds / ROUNDS, self._timed(len(rounds), len(order))))
            self.journal.add(new_round)
            rounds.append(new_round)
        return rounds

    @cached_property
    def reference(self) -> Reference:
        """The FP32 engine's outputs, made when the first block is measured."""
        single = self.workshop.engine(everything(self.blocks, "fp32", "fp32"))
        return Reference(self.workshop, single, self.workshop.frames(self.limit))

    def _name(self, mix: Mix) -> str:
        lifted = any(mix[block.name] != "int8" for block in self.blocks if block.convolutions)
        if not lifted and not (self.workshop.on_gpu and "fp32" in mix.values()):
            return "INT8"
        return f"mix {sum(score.name.startswith('mix') for score in self.scores.values()) + 1}"

    def _timed(self, rounds: int, engines: int) -> Callable[[int], None]:
        return lambda done: self.feedback.progress("latency", rounds * engines + done, ROUNDS * engines)

    def _progress(self, phase: str) -> Progress:
        return lambda _, done, total: self.feedback.progress(phase, done, total)


def check_gate(tuned: Tuned) -> None:
    """Raises GateError if no mix but FP32 itself is within the bound."""
    if tuned.chosen is None:
        nearest = min(tuned.points[1:], key=lambda point: point.drop)
        raise GateError(
            f"No mix is within --max-drop {tuned.max_drop:g}: the nearest, {nearest.name}, loses {nearest.drop:.2f} points of mIoU.",
            "Allow more, calibrate with another --method or more images, or build with --fp32.",
        )


def _in_int8(mix: Mix) -> int:
    return sum(level == "int8" for level in mix.values())
