"""A Runner to a latency and throughput Report: the engine alone, and from a decoded frame to a label map."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import machine
from ..backends import BACKENDS
from ..errors import UsageError
from ..image import native
from ..image.upsample import mixed_share
from ..runtime.cpu_session import preprocess_frames
from ..runtime.frame_runner import FrameRunner
from ..runtime.session import DeviceTimed, EngineSession
from ..types import Frame, LabelMap, Progress, no_progress
from .report import Report, Timing

#: Fewer steps than this make the 99th percentile little more than the slowest step.
STEPS_FOR_P99 = 100
LEAST_STEPS = 3
MANY_MIXED_CELLS = 0.4
_FIRST_RUNS = 2  # the second one captures a CUDA graph


@dataclass(slots=True)
class _Stopwatch:
    """How long to measure, with which clock, and the callback for the progress."""

    seconds: float
    clock: Callable[[], float]
    progress: Progress
    least_steps: int = LEAST_STEPS

    def repeat(self, phase: str, step: Callable[[], None], seconds: float | None = None) -> float:
        """Calls `step` until the time is over, at least `least_steps` times; returns the seconds it took."""
        limit = self.seconds if seconds is None else seconds
        begin = self.clock()
        steps = 0
        while True:
            step()
            steps += 1
            elapsed = self.clock() - begin
            self._tell(phase, min(elapsed, limit), limit)
            if elapsed >= limit and steps >= self.least_steps:
                return elapsed

    def _tell(self, phase: str, done: float, total: float) -> None:
        self.progress(phase, round(done * 1000), max(1, round(total * 1000)))


@dataclass(slots=True)
class _Laps:
    """Latencies and stages collected while measuring, in ms."""

    total: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=dict)

    def add(self, total: float, **stages: float) -> None:
        self.total.append(total * 1000)
        for name, value in stages.items():
            self.stages.setdefault(name, []).append(value * 1000)


def run_stages(
    runner: FrameRunner, frames: Sequence[Frame], clock: Callable[[], float] = time.perf_counter
) -> tuple[list[LabelMap], dict[str, float]]:
    """Runs one batch of frames in the runner's first session, which nothing else may use meanwhile.

    Returns the label maps and the seconds of each stage: "preprocess", "engine", "postprocess".
    """
    session = runner.sessions[0]
    begin = clock()
    session.load(frames)
    ready = clock()
    session.begin("labels")
    session.synchronize()
    done = clock()
    labels: list[LabelMap] = session.take()
    return labels, {"preprocess": ready - begin, "engine": done - ready, "postprocess": clock() - done}


def bench(
    runner: FrameRunner,
    frames: Sequence[Frame],
    *,
    seconds: float = 10.0,
    warmup: float = 2.0,
    progress: Progress = no_progress,
    clock: Callable[[], float] = time.perf_counter,
) -> Report:
    """Times one batch of frames, over and over, on an open runner: `seconds` for the engine alone and as long again end to end.

    Frames are decoded RGB (H, W, 3) of any size; their number is the batch. With one session the steps follow each other and
    stages are timed apart (mode "latency"); with more, every session is kept busy ("throughput") and a latency includes the
    queue. Warm-up steps are end to end and not counted. Raises UsageError if the batch does not fit the engine.
    """
    if not 1 <= len(frames) <= runner.max_batch:
        raise UsageError(f"A batch of {len(frames)} does not fit this engine, which takes 1 to {runner.max_batch} frames.")
    watch = _Stopwatch(seconds, clock, progress)
    watch.repeat("warm-up", lambda: _use(runner.run(frames)), warmup)
    mixed = _mixed_cells(runner, frames)
    single = len(runner.sessions) == 1
    engine, device = _engine_latency(runner, frames, watch) if single else (_engine_throughput(runner, frames, watch), None)
    whole, stages = _whole_latency(runner, frames, watch) if single else (_whole_throughput(runner, frames, watch), {})
    return Report(
        engine=engine,
        end_to_end=whole,
        engine_without_copies=device,
        mode="latency" if single else "throughput",
        batch=len(frames),
        lanes=len(runner.sessions),
        warmup_s=warmup,
        frame={"height": frames[0].shape[0], "width": frames[0].shape[1]},
        model=_model_facts(runner),
        environment=environment(),
        stages=stages,
        mixed_cells=mixed,
        notes=_notes(runner, engine, whole, mixed),
        conventions=_conventions(runner),
    )


def bench_turn(
    runner: FrameRunner, frames: Sequence[Frame], seconds: float, warmup: float, clock: Callable[[], float] = time.perf_counter
) -> tuple[Timing, Timing]:
    """The latencies of `bench` in mode "latency" and no other facts: of the engine alone and of whole frames, each for `seconds`.

    For runners that take turns: a turn of a slow one is a warm-up step, what an engine's first run does, and a step of each.
    """
    watch = _Stopwatch(seconds, clock, no_progress, least_steps=1)
    watch.repeat("warm-up", lambda: _use(runner.run(frames)), warmup)
    return _engine_latency(runner, frames, watch)[0], _whole_latency(runner, frames, watch)[0]


def _engine_latency(runner: FrameRunner, frames: Sequence[Frame], watch: _Stopwatch) -> tuple[Timing, Timing | None]:
    """Times start and wait on a fixed input, and the time on the device itself if the engine knows it."""
    engine, laps = _filled(runner, frames)[0], _Laps()
    device: list[float] = []

    def step() -> None:
        begin = watch.clock()
        engine.start(runner.engine_batch(len(frames)))
        engine.wait()
        laps.add(watch.clock() - begin)
        if isinstance(engine, DeviceTimed):
            device.append(engine.device_ms())

    watch.repeat("engine only", step)
    return _one_by_one(laps.total, len(frames)), _one_by_one(device, len(frames)) if device else None


def _one_by_one(latencies_ms: Sequence[float], batch: int) -> Timing:
    """A Timing of steps in sequence. The time between them, such as for drawing the progress bar, is not counted."""
    return Timing(tuple(latencies_ms), batch, sum(latencies_ms) / 1000)


def _whole_latency(runner: FrameRunner, frames: Sequence[Frame], watch: _Stopwatch) -> tuple[Timing, dict[str, float]]:
    """A decoded frame to a label map, with the median of each stage."""
    laps = _Laps()

    def step() -> None:
        labels, stages = run_stages(runner, frames, watch.clock)
        _use(labels)
        laps.add(sum(stages.values()), **stages)

    watch.repeat("end to end", step)
    stages = {name: float(np.median(values)) for name, values in laps.stages.items()}
    return _one_by_one(laps.total, len(frames)), stages


def _engine_throughput(runner: FrameRunner, frames: Sequence[Frame], watch: _Stopwatch) -> Timing:
    """Keeps every session's engine busy: waits for the oldest run and starts it again. Runs unfinished at the end are not counted."""
    laps = _Laps()
    running: deque[tuple[EngineSession, float]] = deque()
    for engine in _filled(runner, frames):
        running.append((engine, watch.clock()))
        engine.start(runner.engine_batch(len(frames)))

    def step() -> None:
        engine, begin = running.popleft()
        engine.wait()
        now = watch.clock()
        laps.add(now - begin)
        running.append((engine, now))
        engine.start(runner.engine_batch(len(frames)))

    elapsed = watch.repeat("engine only", step)
    for engine, _ in running:
        engine.wait()
    return Timing(tuple(laps.total), len(frames), elapsed)


def _whole_throughput(runner: FrameRunner, frames: Sequence[Frame], watch: _Stopwatch) -> Timing:
    """Times submit and result, with one submission in flight for each session."""
    laps = _Laps()
    tickets = deque((watch.clock(), runner.submit(frames)) for _ in runner.sessions)

    def step() -> None:
        begin, ticket = tickets.popleft()
        _use(runner.result(ticket))
        now = watch.clock()
        laps.add(now - begin)
        tickets.append((now, runner.submit(frames)))

    elapsed = watch.repeat("end to end", step)
    for _, ticket in tickets:
        runner.result(ticket)
    return Timing(tuple(laps.total), len(frames), elapsed)


def _filled(runner: FrameRunner, frames: Sequence[Frame]) -> list[EngineSession]:
    """The sessions' engines, each with the preprocessed frames in its input, after the first runs, which do extra work."""
    engines = [session.engine for session in runner.sessions]
    for engine in engines:
        preprocess_frames(frames, runner.spec, engine.input, runner.threads)
        for _ in range(_FIRST_RUNS):
            engine.start(runner.engine_batch(len(frames)))
            engine.wait()
    return engines


def _use(labels: list[LabelMap]) -> None:
    """Does nothing with the labels; the call shows that they are complete when the clock is read."""
    assert labels


def _mixed_cells(runner: FrameRunner, frames: Sequence[Frame]) -> float | None:
    if runner.spec.head != "lowres":
        return None
    return float(np.mean([mixed_share(logits) for logits in runner.logits(frames)]))


def _model_facts(runner: FrameRunner) -> dict[str, Any]:
    spec, info = runner.spec, runner.info
    facts: dict[str, Any] = {
        "name": spec.name,
        "weights": spec.weights,
        "classes": len(spec.classes),
        "head": spec.head,
        "input": list(spec.size),
    }
    if info is not None:
        facts |= {"backend": info.backend, "builder_version": info.builder_version, "gpu": info.gpu, "batch_min_opt_max": list(info.batch)}
        facts |= {"precision_asked": info.precision.asked, "precision_found": info.precision.state, "layers": dict(info.precision.layers)}
    return facts


def on_gpu(runner: FrameRunner) -> bool:
    """Whether the runner's engine works on a GPU."""
    if runner.info is None:
        return False
    row = BACKENDS.get(runner.info.backend)  # an engine that came from no plan has none
    return runner.info.gpu is not None if row is None else row.on_gpu


def _conventions(runner: FrameRunner) -> dict[str, str]:
    """What the figures count, compared with trtexec, whose versions 10 and 11 count differently."""
    if not on_gpu(runner):
        engine = "start to output; both lie in host memory, so trtexec 10, which counts copies, and 11, which does not, would agree"
    else:
        engine = "start to output in host memory: copies to and from the GPU are counted, as trtexec 10 does and trtexec 11 does not"
    conventions = {"engine": engine, "end_to_end": "decoded RGB frame in host memory to uint8 label map of the frame's own size"}
    if all(isinstance(session.engine, DeviceTimed) for session in runner.sessions):
        conventions["engine_without_copies"] = "how long the GPU itself was busy with the engine, by CUDA events: what trtexec 11 counts"
    return conventions


def environment() -> dict[str, Any]:
    """What figures of whole frames depend on, ready for JSON: `machine.environment` and what does the pre- and post-processing."""
    return {**machine.environment(), "pre_and_postprocessing": native.description()}


def native_notes() -> list[str]:
    """A note if the pre- and post-processing is not the compiled code."""
    if native.available():
        return []
    return [f"Pre- and post-processing ran in {native.description()}: rtformer-deploy doctor says how to get the compiled code."]


def _notes(runner: FrameRunner, engine: Timing, whole: Timing, mixed: float | None) -> tuple[str, ...]:
    notes = native_notes()
    steps = min(len(engine.latencies_ms), len(whole.latencies_ms))
    if steps < STEPS_FOR_P99:
        notes.append(f"Only {steps} steps: p99 is little more than the slowest one. Measure longer with --seconds.")
    if (runner.spec.weights or "").startswith("random"):
        notes.append("The weights are random, so the share of mixed cells, on which post-processing depends, is not a trained network's.")
    elif mixed is not None and mixed > MANY_MIXED_CELLS:
        notes.append(f"{mixed:.0%} of the cells are mixed, far more than in a usual street scene: post-processing takes longer here.")
    notes += runner.notes
    if len(runner.sessions) > 1:
        notes.append("Throughput mode: a latency includes waiting behind the other lanes, and stages overlap; --lanes 1 times them apart.")
    return tuple(notes)
