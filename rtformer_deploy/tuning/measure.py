"""Levels in, an engine of that mix out, and what is measured on it: its logits' error, its mIoU, its latency."""

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
from ..formats.build_table import Mix
from ..pipeline import prepare_model
from ..runtime.frame_runner import FrameRunner
from ..timing.bench import bench
from ..types import Backend, BuildOptions, Engine, Frame, ModelSpec, Progress, Ranges
from .blocks import Block, globs
from .search import Level, Levels

_PIXELS = 20_000  # of an image's logits that are compared
_WARMUP = 0.3  # seconds before a latency is taken


@dataclass(frozen=True, slots=True)
class Error:
    """How far an engine's output is from the FP32 engine's: the mean square of the logits' difference over that of the logits (None:
    the engine gives labels), and the share of compared pixels whose class changes."""

    square: float | None
    flips: float


@dataclass(slots=True)
class Workshop:
    """Builds mixes of one model for one backend, and measures them on one dataset; keeps the engines that are scored."""

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

    def mix(self, levels: Mapping[str, Level]) -> Mix:
        """What `build-engine` needs to know to build these levels."""
        present = set(levels.values())
        if present == {"fp32"}:
            return Mix("fp32")
        fp32 = [name for block in self.blocks if levels[block.name] == "fp32" for name in block.operators] if self.on_gpu else []
        if "int8" not in present:
            return Mix("fp16", (), globs(fp32))
        keep = [name for block in self.blocks if levels[block.name] != "int8" for name in block.convolutions]
        return Mix("int8", globs(keep), globs(fp32))

    def engine(self, levels: Levels) -> Engine:
        """The engine of a mix. Raises BuildError."""
        mix = self.mix(levels)
        batch = self.spec.input.shape[0]
        sizes = (batch, batch, batch) if isinstance(batch, int) else (1, 1, 1)
        mixed = bool(mix.keep or mix.fp32)
        options = BuildOptions(precision=mix.precision, batch=sizes, threads=self.threads, device=self.device, mixed=mixed)
        ready = prepare_model(self.model, self.backend, options, self.ranges, mix.keep, mix.fp32)
        return build(ready, self.spec, self.backend, options)

    def open(self, engine: Engine) -> FrameRunner:
        return open_engine(engine, device=self.device, threads=self.threads)

    def miou(self, key: str, levels: Levels, progress: Progress) -> float:
        """Mean IoU of a mix over the whole split, 0 to 1; its engine is kept for `latencies`. Raises DatasetError without scored pixels."""
        engine = self.engines[key] = self.engine(levels)
        with self.open(engine) as runner:
            value = evaluate(runner, self.dataset, progress).scores.miou
        if np.isnan(value):
            raise DatasetError(f"The split {self.dataset.split!r} of {self.dataset.name} has no labelled pixel, so no mIoU.")
        return value

    def latencies(
        self, points: Mapping[str, Levels], seconds: float, tell: Callable[[int], None] = lambda done: None
    ) -> dict[str, tuple[float, float]]:
        """One round: the median latency in ms of each mix's engine alone and end to end, in the order given, one right after the other;
        `tell` hears how many are done."""
        frame = self.frames(1)[0]
        found = {}
        for key, levels in points.items():
            if key not in self.engines:
                self.engines[key] = self.engine(levels)
            with self.open(self.engines[key]) as runner:
                report = bench(runner, [frame] * runner.batch[0], seconds=seconds, warmup=_WARMUP)
            found[key] = report.engine.percentile(50), report.end_to_end.percentile(50)
            tell(len(found))
        return found

    def frames(self, count: int) -> list[Frame]:
        """At most `count` frames of the split, evenly spread over it."""
        chosen = np.unique(np.linspace(0, len(self.dataset) - 1, min(count, len(self.dataset))).round().astype(int))
        return [self.dataset.read_frame(self.dataset.samples[index]) for index in chosen]


class Reference:
    """What the FP32 engine makes of a few frames, and how far another engine is from it."""

    def __init__(self, workshop: Workshop, engine: Engine, frames: Sequence[Frame]) -> None:
        self.workshop, self.frames = workshop, frames
        self.outputs = list(self._outputs(engine))

    def error(self, engine: Engine) -> Error:
        """The error of an engine over all frames."""
        difference = total = 0.0
        changed = pixels = 0
        labels = self.workshop.spec.head == "labels"
        for wanted, given in zip(self.outputs, self._outputs(engine), strict=True):
            if labels:
                changed += int(np.count_nonzero(wanted != given))
            else:
                difference += float(np.square(wanted - given, dtype=np.float64).sum())
                total += float(np.square(wanted, dtype=np.float64).sum())
                changed += int(np.count_nonzero(wanted.argmax(0) != given.argmax(0)))
            pixels += wanted.shape[-1]
        return Error(None if labels else difference / max(total, 1e-300), changed / max(pixels, 1))

    def _outputs(self, engine: Engine) -> list[NDArray[Any]]:
        """Each frame's logits (classes, pixels), or labels (pixels,), thinned out where there are many."""
        with self.workshop.open(engine) as runner:
            if self.workshop.spec.head == "labels":
                return [_thin(runner.run([frame])[0].reshape(-1)) for frame in self.frames]
            return [_thin(logits.reshape(len(logits), -1)) for frame in self.frames for logits in runner.logits([frame])]


def alone(blocks: Sequence[Block], name: str, level: Level, rest: Level) -> Levels:
    """One block at a level, the others at another."""
    return {block.name: level if block.name == name else rest for block in blocks}


def everything(blocks: Sequence[Block], level: Level, above: Level) -> Levels:
    """Every block at a level; what cannot be INT8 at the one above."""
    return {block.name: level if block.convolutions or level != "int8" else above for block in blocks}


def _thin(values: NDArray[Any]) -> NDArray[Any]:
    step = -(-values.shape[-1] // _PIXELS)
    return values[..., ::step].copy()
