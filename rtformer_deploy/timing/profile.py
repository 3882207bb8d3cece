"""An engine -> the time of its layers and blocks, beside the time of the engine without profiling."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends import layer_times, open_engine
from ..errors import UsageError
from ..graph.names import home
from ..image.samples import sample_frame
from ..runtime.cpu_session import preprocess_frames
from ..runtime.frame_runner import FrameRunner
from ..runtime.layer_times import WARM_UP, LayerTime, run_once
from ..runtime.session import DeviceTimed
from ..types import FOREIGN, Engine

#: Blocks for layers outside every module: the library's own copies between memory layouts, and layers whose name has one part only.
LAYOUT, NO_MODULE = "(layout changes)", "(no module)"
_PATH = re.compile(r"[./]")
_LAYOUT_KIND = re.compile(r"reorder|reformat", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class BlockTime:
    """Layers of one module: how many, and the sum of their medians in ms."""

    name: str
    layers: int
    ms: float


@dataclass(frozen=True, slots=True)
class Profile:
    """Where an engine's time goes: its layers in the order they ran in, and `whole_ms`, the median of a run without profiling.

    `rounds` is the number of runs behind each median.
    """

    model: str
    backend: str
    size: tuple[int, int]
    batch: int
    rounds: int
    layers: tuple[LayerTime, ...]
    whole_ms: float

    @property
    def layers_ms(self) -> float:
        """The sum of the layers' medians; the shares are parts of it."""
        return sum(layer.ms for layer in self.layers)

    def top(self, count: int) -> tuple[LayerTime, ...]:
        """The slowest layers, the slowest first."""
        return tuple(sorted(self.layers, key=lambda layer: layer.ms, reverse=True)[:count])

    def share(self, ms: float) -> float:
        """A time as a part of `layers_ms`, 0 to 1."""
        return ms / self.layers_ms if self.layers_ms else 0.0

    def blocks(self) -> tuple[BlockTime, ...]:
        """The layers by module (see `block_of`), the slowest first."""
        members: dict[str, list[LayerTime]] = {}
        for layer in self.layers:
            members.setdefault(block_of(layer), []).append(layer)
        blocks = [BlockTime(name, len(layers), sum(layer.ms for layer in layers)) for name, layers in members.items()]
        return tuple(sorted(blocks, key=lambda block: block.ms, reverse=True))

    def summary(self) -> str:
        """One sentence: what profiling costs."""
        return f"The layers sum to {self.layers_ms:.2f} ms; the engine alone, without profiling, takes {self.whole_ms:.2f} ms."

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "backend": self.backend,
            "input": list(self.size),
            "batch": self.batch,
            "rounds": self.rounds,
            "whole_ms": self.whole_ms,
            "layers_ms": self.layers_ms,
            "layers": [_layer_json(layer, self.share(layer.ms), block_of(layer)) for layer in self.layers],
            "blocks": [
                {"name": block.name, "layers": block.layers, "ms": block.ms, "share": self.share(block.ms)} for block in self.blocks()
            ],
        }


def profile_engine(engine: Engine, *, rounds: int = 20, device: int = 0, threads: int | None = None) -> Profile:
    """An engine -> its Profile on the sample frame, in the engine's smallest batch.

    Medians of `rounds` runs, first without profiling, then with it; TensorRT runs without CUDA graphs both times. Raises what opening
    raises, and UsageError for no rounds.
    """
    if rounds < 1:
        raise UsageError(f"{rounds} rounds have no median; they start at 1.")
    images, whole_ms = _without_profiling(engine, rounds, device, threads)
    spec = engine.info.spec
    layers = layer_times(engine, images, rounds, device=device, threads=threads)
    if spec.arch.get("name") != FOREIGN:
        layers = tuple(_in_module(layer) for layer in layers)
    return Profile(spec.name, engine.info.backend, spec.size, len(images), rounds, layers, whole_ms)


def block_of(layer: LayerTime) -> str:
    """The module a layer belongs to (see `graph.names.home`), or LAYOUT or NO_MODULE."""
    if _LAYOUT_KIND.match(layer.kind):
        return LAYOUT
    name = layer.node or layer.name
    return home(name) if _PATH.search(name) else NO_MODULE


def _in_module(layer: LayerTime) -> LayerTime:
    """A layer of a network that `export` named: a node whose name has one part is a module of its own."""
    return replace(layer, node=f"{layer.node}/{layer.kind}") if layer.node and not _PATH.search(layer.node) else layer


def _without_profiling(engine: Engine, rounds: int, device: int, threads: int | None) -> tuple[NDArray[np.floating], float]:
    """The engine's input, preprocessed from the sample frame (N, 3, H, W), and the median of a run in ms."""
    with open_engine(engine, device=device, threads=threads, graphs=False) as runner:
        batch = runner.engine_batch(1)
        images = runner.sessions[0].engine.input[:batch]
        preprocess_frames([sample_frame(runner.spec.frame_size)] * batch, runner.spec, images, runner.threads)
        images = images.copy()
        return images, statistics.median(_latencies(runner, batch, rounds))


def _latencies(runner: FrameRunner, batch: int, rounds: int) -> Sequence[float]:
    """Latencies in ms; the GPU's own time if the engine knows it, because the layers add up to that."""
    engine, times = runner.sessions[0].engine, []
    for number in range(WARM_UP + rounds):
        begin = time.perf_counter()
        run_once(engine, batch)
        elapsed_ms = 1000 * (time.perf_counter() - begin)
        if number >= WARM_UP:
            times.append(engine.device_ms() if isinstance(engine, DeviceTimed) else elapsed_ms)
    return times


def _layer_json(layer: LayerTime, share: float, block: str) -> dict[str, Any]:
    return {
        "name": layer.name,
        "kind": layer.kind,
        "kernel": layer.kernel,
        "precision": layer.precision,
        "block": block,
        "ms": layer.ms,
        "share": share,
        "runs_ms": list(layer.runs_ms),
    }
