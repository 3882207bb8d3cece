"""An engine to how long each of its layers takes, as its own library measures it; one reader per backend."""

from __future__ import annotations

import importlib
import statistics
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..types import Engine
from .base import Session

#: Runs that are not counted: the first ones allocate, and choose or compile kernels.
WARM_UP = 2

_MODULES = {
    "tensorrt": "profile_tensorrt",
    "tensorrt-rtx": "profile_tensorrt",
    "openvino": "profile_openvino",
    "onnxruntime": "profile_onnxruntime",
}


@dataclass(frozen=True, slots=True)
class LayerTime:
    """One layer that was run: its name, its kind and kernel in the library's words, its precision ("" where it is not told), and its
    time in each run in ms."""

    name: str
    kind: str
    kernel: str
    precision: str
    runs_ms: tuple[float, ...]

    @property
    def ms(self) -> float:
        """The median of its runs."""
        return statistics.median(self.runs_ms)


def layer_times(
    engine: Engine, images: NDArray[np.float32], rounds: int, *, device: int = 0, threads: int | None = None
) -> tuple[LayerTime, ...]:
    """An engine and its input (N, 3, H, W) -> the layers that ran, in the library's order, each with its time in `rounds` runs.

    What was fused into another layer does not appear. Opens the engine anew, with profiling. Raises EngineError, MissingPackageError.
    """
    reader = importlib.import_module(f".{_MODULES[engine.info.backend]}", __package__)
    layers: list[LayerTime] = reader.layer_times(engine, images, rounds, device, threads)
    return tuple(layers)


def run_once(session: Session, batch: int) -> Any:
    """One request on the input as it stands, waited for."""
    session.start(batch)
    return session.wait()
