"""Runs ONNX bytes on the CPU with ONNX Runtime, with graph optimisation off unless it is asked for: what the model says, no more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray


def open_session(data: bytes, *, optimised: bool = False, profile: str | None = None) -> Any:
    """ONNX bytes -> an onnxruntime.InferenceSession; `profile` is how the name of its profile's file begins.

    Raises ONNX Runtime's errors.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4  # only what ends the process: errors are raised
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, "ORT_ENABLE_ALL" if optimised else "ORT_DISABLE_ALL")
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, profile
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def run_model(data: bytes, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """ONNX bytes and their inputs by name -> their outputs by name. Raises ONNX Runtime's errors."""
    session = open_session(data)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feed)), strict=True))
