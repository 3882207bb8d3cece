"""Engines to runners: `open_engine` finds the backend; no backend is imported before it is asked for."""

from __future__ import annotations

import importlib
import time
from typing import Any

from ..errors import EngineError, UsageError
from ..types import Engine, EngineInfo
from .base import Session
from .frame_runner import FrameRunner

_MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt", "openvino": "openvino", "onnxruntime": "onnxruntime"}


def open_engine(engine: Engine, *, device: int = 0, threads: int | None = None, lanes: int = 1, graphs: bool = True) -> FrameRunner:
    """An engine to a FrameRunner with `lanes` sessions, which keep so many requests in flight.

    All memory is allocated here, but for a GPU's memory for frames, which grows with the largest submission. `device` is the GPU, and
    `graphs` has a TensorRT engine run in CUDA graphs where they can be captured; a CPU engine ignores both. `threads` bounds the CPU
    threads of the engine and of pre- and post-processing (None: all). The plan's backend and builder version are checked before it is
    opened. Raises EngineError with the command that rebuilds the plan, MissingPackageError, UsageError.
    """
    info = engine.info
    if lanes < 1 or (threads is not None and threads < 1):
        raise UsageError(f"{lanes} lanes and {threads} threads: both start at 1.")
    check_engine(info)
    backend = _backend(info)
    options = {"graphs": graphs} if info.backend.startswith("tensorrt") else {}
    begin = time.perf_counter()
    sessions: list[Session] = backend.open_sessions(engine, device, threads, lanes, **options)
    runner = FrameRunner(sessions, info.spec, info.batch, threads, info)
    runner.start_ms = 1000 * (time.perf_counter() - begin)
    return runner


def check_engine(info: EngineInfo) -> None:
    """Raises EngineError or MissingPackageError, with the command that mends it, where such a plan cannot be opened here; opens nothing."""
    _backend(info).check(info)


def _backend(info: EngineInfo) -> Any:
    """The module that opens plans of this kind. Raises EngineError where there is none."""
    if info.backend not in _MODULES:
        raise EngineError(
            f"The plan is for the backend {info.backend!r}, which this version does not know.",
            f"There are: {', '.join(_MODULES)}. Build it again: rtformer-deploy build-engine MODEL.onnx.",
        )
    return importlib.import_module(f".{_MODULES[info.backend]}", __package__)


__all__ = ["FrameRunner", "Session", "check_engine", "open_engine"]
