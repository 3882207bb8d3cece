"""A model -> its engines in FP32, FP16 and INT8, timed in turns, and the fastest one whose pixels stay within a bound."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from ..agreement import Probes
from ..backends import backend_row, open_engine
from ..errors import BuildError, CalibrationError, DeployError, EngineError, ModelError, PrecisionError, shorten
from ..image.samples import sample_frame
from ..pipeline import build_engine
from ..types import Backend, BuildOptions, Candidate, Engine, Feedback, ModelSpec, PrecisionName, Ranges
from .measure import latency_of
from .points import TIE
from .records import Latency
from .run import ROUNDS

#: What is tried, the most precise first.
PRECISIONS: tuple[PrecisionName, ...] = ("fp32", "fp16", "int8")
#: The share of changed pixels above which FP16 and INT8 are dropped if no other bound is given.
MAX_FLIPS = 0.01
#: What may be wrong with one precision alone.
_REFUSED = (BuildError, CalibrationError, EngineError, ModelError, PrecisionError)
_LONGEST = 300  # characters of a reason

#: The latencies of one round, by precision.
Round = Mapping[PrecisionName, Latency]


@dataclass(frozen=True, slots=True)
class Order:
    """What to build for which backend: `options` says everything but the precision.

    `ranges` are INT8's, or the reason why INT8 is left out. `probes` hold the frames that engines are compared on, and the bound on
    changed pixels (None: MAX_FLIPS). `seconds` is the time for one engine in one round, alone and as long again end to end.
    """

    model: ir.Model
    spec: ModelSpec
    backend: Backend
    options: BuildOptions
    ranges: Ranges | str
    probes: Probes
    strict: bool = False
    seconds: float = 0.4

    @property
    def most(self) -> float:
        """The largest share of changed pixels that FP16 and INT8 may have."""
        return MAX_FLIPS if self.probes.max_flips is None else self.probes.max_flips


def fastest_engine(order: Order, feedback: Feedback) -> Engine:
    """An order -> the engine of the fastest precision within the bound; its `candidates` say what was tried, and `feedback` hears it.

    FP32 is within any bound. Where two precisions differ by no more than noise, the more precise one is chosen. Raises what building,
    comparing and running the FP32 engine raise; what is wrong with another precision alone is the reason why that one is dropped.
    """
    if not backend_row(order.backend).on_gpu:
        feedback.say("On a CPU FP16 is storage: it halves the plan and is no faster.")
    engines, dropped = _build_all(order, feedback)
    rounds = time_in_turns(order, engines, feedback)
    allowed = [precision for precision in engines if precision not in dropped]
    best = choose(rounds, allowed)
    candidates = tuple(
        _candidate(precision, engines.get(precision), rounds, best, dropped.get(precision), order.most) for precision in PRECISIONS
    )
    for line in table(candidates):
        feedback.say(line)
    newest = list(engines.values())[-1].timing_cache  # it holds the timings of the builds before it
    chosen = engines[best]
    return replace(chosen, info=replace(chosen.info, candidates=candidates), timing_cache=newest)


def _build_all(order: Order, feedback: Feedback) -> tuple[dict[PrecisionName, Engine], dict[PrecisionName, str]]:
    """The engines that could be built, and why precisions are dropped."""
    engines: dict[PrecisionName, Engine] = {}
    dropped: dict[PrecisionName, str] = {}
    for precision in PRECISIONS:
        if precision == "int8" and isinstance(order.ranges, str):
            dropped[precision] = order.ranges
            continue
        feedback.say(f"Building {precision.upper()} ...")
        try:
            engines[precision] = _build(order, precision, engines, feedback)
        except _REFUSED as error:
            if precision == "fp32":
                raise
            dropped[precision] = _short(error)
            continue
        reason = _above(engines[precision], order.most)
        if reason is not None and precision != "fp32":
            dropped[precision] = reason
    return engines, dropped


def _build(order: Order, precision: PrecisionName, earlier: Mapping[PrecisionName, Engine], feedback: Feedback) -> Engine:
    cache = [engine.timing_cache for engine in earlier.values() if engine.timing_cache is not None]
    options = replace(order.options, precision=precision, timing_cache=cache[-1] if cache else order.options.timing_cache)
    probes = replace(order.probes, max_flips=None)  # the bound is looked at here
    ranges = None if isinstance(order.ranges, str) else order.ranges
    return build_engine(
        order.model, order.spec, order.backend, options, ranges=ranges, strict=order.strict, probes=probes, progress=feedback.progress
    )


def _short(error: DeployError) -> str:
    return shorten(error.what.removesuffix("."), _LONGEST)


def _above(engine: Engine, most: float) -> str | None:
    """Why an engine is not within the bound; None if it is."""
    if engine.info.flips is None:
        return "it could not be compared with ONNX Runtime"
    return None if engine.info.flips <= most else f"{engine.info.flips:.2%} of the pixels change class, more than {most:.2%}"


def time_in_turns(order: Order, engines: Mapping[PrecisionName, Engine], feedback: Feedback) -> list[Round]:
    """Opens all engines and times each of them in every round, one right after the other, each round in another order."""
    frame = sample_frame(order.spec.frame_size)
    rounds: list[Round] = []
    with contextlib.ExitStack() as stack:
        runners = {
            precision: stack.enter_context(open_engine(engine, device=order.options.device, threads=order.options.threads))
            for precision, engine in engines.items()
        }
        names = list(runners)
        for number in range(ROUNDS):
            turn = number % len(names)
            latencies: dict[PrecisionName, Latency] = {}
            for precision in names[turn:] + names[:turn]:
                runner = runners[precision]
                latencies[precision] = latency_of(runner, [frame] * runner.batch[1], order.seconds)
                feedback.progress("time in turns", number * len(names) + len(latencies), ROUNDS * len(names))
            rounds.append(latencies)
    return rounds


def choose(rounds: Sequence[Round], allowed: Sequence[PrecisionName]) -> PrecisionName:
    """The fastest of `allowed`, which begins with the most precise; a less precise one has to be faster by more than noise."""
    best = allowed[0]
    for precision in allowed[1:]:
        if is_faster(rounds, precision, best):
            best = precision
    return best


def is_faster(rounds: Sequence[Round], precision: PrecisionName, other: PrecisionName) -> bool:
    """Whether a precision is faster than another by more than noise: in all rounds but one, and in the median by more than TIE."""
    ratios = _ratios(rounds, precision, other)
    return float(np.median(ratios)) < 1 - TIE and sum(ratio < 1 for ratio in ratios) >= max(1, len(ratios) - 1)


def _ratios(rounds: Sequence[Round], precision: PrecisionName, other: PrecisionName) -> list[float]:
    """The engine's latency over the other's, round by round."""
    return [each[precision].engine / each[other].engine for each in rounds]


def _candidate(
    precision: PrecisionName, engine: Engine | None, rounds: Sequence[Round], best: PrecisionName, reason: str | None, most: float
) -> Candidate:
    if engine is None:
        return Candidate(precision, "dropped", reason or "it was not built")
    ms = round(float(np.median([each[precision].engine for each in rounds])), 4)
    flips = engine.info.flips
    if reason is not None:
        return Candidate(precision, "dropped", reason, ms, flips)
    always = _above(engine, most)
    more = f"; {always}, but FP32 is always allowed" if always is not None else ""
    if precision == best:
        return Candidate(precision, "chosen", f"the fastest{more}", ms, flips)
    return Candidate(precision, "kept", _behind(rounds, precision, best) + more, ms, flips)


def _behind(rounds: Sequence[Round], precision: PrecisionName, best: PrecisionName) -> str:
    """Why a precision that is within the bound is not chosen."""
    ratio = float(np.median(_ratios(rounds, precision, best)))
    less_precise = PRECISIONS.index(precision) > PRECISIONS.index(best)
    if less_precise and ratio <= 1 + TIE:
        return f"{ratio:.2f} of {best.upper()}'s time, which is within noise, and {best.upper()} is more precise"
    return f"{ratio:.2f} times {best.upper()}'s time"


def table(candidates: Sequence[Candidate]) -> list[str]:
    """Candidates as lines for a person: milliseconds, changed pixels, what became of each and why."""
    lines = [f"Timed in turns, {ROUNDS} rounds; medians of the engine alone, and the pixels that change class:"]
    for each in candidates:
        ms = "-" if each.ms is None else f"{each.ms:.2f} ms"
        flips = "-" if each.flips is None else f"{each.flips:.4%}"
        lines.append(f"  {each.precision.upper()}  {ms:>11}  {flips:>9}  {each.state:<7}  {each.why}")
    return lines
