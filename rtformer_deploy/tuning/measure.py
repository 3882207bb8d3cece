"""A mix -> its engine and the engine's measurements: logits' error, mIoU, latency."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..backends import backend_row, build, open_engine
from ..datasets import Dataset
from ..errors import DatasetError
from ..evaluation.evaluate import evaluate
from ..formats.build_table import PrecisionMix
from ..formats.model_file import file_sha256
from ..pipeline import preparation, prepare_model
from ..runtime.frame_runner import FrameRunner
from ..timing.bench import bench
from ..types import Backend, BuildOptions, Engine, Frame, ModelSpec, Progress, Ranges
from .blocks import Block, globs
from .records import Latency
from .search import Level, Mix

_PIXELS = 20_000  # of an image's logits that are compared
_WARMUP = 0.3  # seconds before a latency is taken


@dataclass(frozen=True, slots=True)
class Error:
    """How far an engine's output is from the FP32 engine's.

    `square` is the mean square of the logits' difference over that of the logits (None: the engine gives labels), `flips` the share of
    compared pixels whose class changes.
    """

    square: float | None
    flips: float


@dataclass(slots=True)
class Workshop:
    """Builds mixes of one model for one backend, and measures them on one dataset; keeps the engines that are scored.

    A mix has two forms: `Mix`, the level of each block, and `PrecisionMix`, the names of operators that a builder and a recipe take.
    """

    model: ir.Model
    spec: ModelSpec
    backend: Backend
    ranges: Ranges
    blocks: Sequence[Block]
    dataset: Dataset
    threads: int | None = None
    device: int = 0
    engines: dict[str, Engine] = field(default_factory=dict)

    @property
    def on_gpu(self) -> bool:
        return backend_row(self.backend).on_gpu

    def by_operator(self, mix: Mapping[str, Level]) -> PrecisionMix:
        """A mix by operators, as `build-engine` takes it."""
        present = set(mix.values())
        if present == {"fp32"}:
            return PrecisionMix("fp32")
        fp32 = [name for block in self.blocks if mix[block.name] == "fp32" for name in block.operators] if self.on_gpu else []
        if "int8" not in present:
            return PrecisionMix("fp16", (), globs(fp32))
        exclude = [name for block in self.blocks if mix[block.name] != "int8" for name in block.convolutions]
        return PrecisionMix("int8", globs(exclude), globs(fp32))

    def engine(self, mix: Mix) -> Engine:
        """The engine of a mix. Raises BuildError."""
        names = self.by_operator(mix)
        batch = self.spec.input.shape[0]
        sizes = (batch, batch, batch) if isinstance(batch, int) else (1, 1, 1)
        options = BuildOptions(precision=names.precision, batch=sizes, threads=self.threads, device=self.device, mixed=names.mixed)
        names_told = names.exclude, names.fp32
        ready = prepare_model(self.model, self.backend, options, self.ranges, *names_told, **preparation(self.spec, self.backend))
        return build(ready, self.spec, self.backend, options, model_sha256=file_sha256(self.model))

    def open(self, engine: Engine) -> FrameRunner:
        return open_engine(engine, device=self.device, threads=self.threads)

    def miou(self, key: str, mix: Mix, progress: Progress) -> float:
        """Mean IoU of a mix over the whole split, 0 to 1; its engine is kept for `latencies`. Raises DatasetError without scored pixels."""
        engine = self.engines[key] = self.engine(mix)
        with self.open(engine) as runner:
            value = evaluate(runner, self.dataset, progress).scores.miou
        if np.isnan(value):
            raise DatasetError(f"The split {self.dataset.split!r} of {self.dataset.name} has no labelled pixel, so no mIoU.")
        return value

    def latencies(self, mixes: Mapping[str, Mix], seconds: float, tell: Callable[[int], None] = lambda done: None) -> dict[str, Latency]:
        """One round: the latency of each mix (by key), in the order of `mixes`, one right after the other.

        `tell` is called with the number of mixes that are done.
        """
        frame = self.frames(1)[0]
        latencies: dict[str, Latency] = {}
        for key, mix in mixes.items():
            if key not in self.engines:
                self.engines[key] = self.engine(mix)
            with self.open(self.engines[key]) as runner:
                latencies[key] = latency_of(runner, [frame] * runner.batch[0], seconds)
            tell(len(latencies))
        return latencies

    def frames(self, count: int) -> list[Frame]:
        """At most `count` frames of the split, evenly spread over it."""
        indices = np.unique(np.linspace(0, len(self.dataset) - 1, min(count, len(self.dataset))).round().astype(int))
        return [self.dataset.read_frame(self.dataset.samples[index]) for index in indices]


def latency_of(runner: FrameRunner, frames: Sequence[Frame], seconds: float) -> Latency:
    """One batch of frames, over and over -> medians after a short warm-up: `seconds` for the engine alone, as long again end to end."""
    report = bench(runner, frames, seconds=seconds, warmup=_WARMUP)
    return Latency(report.engine.percentile(50), report.end_to_end.percentile(50))


class Reference:
    """The FP32 engine's outputs on a few frames, and how far another engine's are from them."""

    def __init__(self, workshop: Workshop, engine: Engine, frames: Sequence[Frame]) -> None:
        self.workshop, self.frames = workshop, frames
        self.outputs = list(self._outputs(engine))

    def error(self, engine: Engine) -> Error:
        """The error of an engine over all frames."""
        difference = total = 0.0
        changed = pixels = 0
        labels = self.workshop.spec.head == "labels"
        for exact, output in zip(self.outputs, self._outputs(engine), strict=True):
            if labels:
                changed += int(np.count_nonzero(exact != output))
            else:
                difference += float(np.square(exact - output, dtype=np.float64).sum())
                total += float(np.square(exact, dtype=np.float64).sum())
                changed += int(np.count_nonzero(exact.argmax(0) != output.argmax(0)))
            pixels += exact.shape[-1]
        return Error(None if labels else difference / max(total, 1e-300), changed / max(pixels, 1))

    def _outputs(self, engine: Engine) -> list[NDArray[Any]]:
        """Each frame's logits (classes, pixels), or labels (pixels,), thinned out if there are many."""
        with self.workshop.open(engine) as runner:
            if self.workshop.spec.head == "labels":
                return [_thin(runner.run([frame])[0].reshape(-1)) for frame in self.frames]
            return [_thin(logits.reshape(len(logits), -1)) for frame in self.frames for logits in runner.logits([frame])]


def alone(blocks: Sequence[Block], name: str, level: Level, rest: Level) -> Mix:
    """The mix of one block at a level and the others at another."""
    return {block.name: level if block.name == name else rest for block in blocks}


def everything(blocks: Sequence[Block], level: Level, above: Level) -> Mix:
    """The mix of every block at a level; blocks that cannot be INT8 are at the level above."""
    return {block.name: level if block.convolutions or level != "int8" else above for block in blocks}


def _thin(values: NDArray[Any]) -> NDArray[Any]:
    step = -(-values.shape[-1] // _PIXELS)
    return values[..., ::step].copy()
