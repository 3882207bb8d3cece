"""Engines to runners: `open_engine` finds the backend; no backend is imported before it is asked for."""

from __future__ import annotations

import importlib

from ..errors import EngineError, UsageError
from ..types import Engine
from .base import Session
from .frame_runner import FrameRunner

_MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt", "openvino": "openvino", "onnxruntime": "onnxruntime"}


def open_engine(engine: Engine, *, device: int = 0, threads: int | None = None, lanes: int = 1) -> FrameRunner:
    """An engine to a FrameRunner with `lanes` sessions, which keep so many requests in flight; all memory is allocated here.

    `device` is the GPU (a CPU engine ignores it); `threads` bounds the CPU threads of the engine and of pre- and post-processing
    (None: all). The plan's backend and builder version are checked before it is opened. Raises EngineError with the command that
    rebuilds the plan, MissingPackageError, UsageError.
    """
    info = engine.info
    if info.backend not in _MODULES:
        raise EngineError(
            f"The plan is for the backend {info.backend!r}, which this version does not know.",
            f"There are: {', '.join(_MODULES)}. Build it again: rtformer-deploy build-engine MODEL.onnx.",
        )
    if lanes < 1 or (threads is not None and threads < 1):
        raise UsageError(f"{lanes} lanes and {threads} threads: both start at 1.")
    backend = importlib.import_module(f".{_MODULES[info.backend]}", __package__)
    backend.check(info)
    sessions: list[Session] = backend.open_sessions(engine, device, threads, lanes)
    return FrameRunner(sessions, info.spec, info.batch, threads)


__all__ = ["FrameRunner", "Session", "open_engine"]
