"""ONNX Runtime and OpenVINO, as a trial run opens them, with their errors told apart: too little memory, or something else."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any

from ..errors import DeployError, ModelError, first_line
from ..graph.run import open_session

_NO_MEMORY = ("bad_alloc", "ailed to allocate memory", "Cannot allocate memory", "MemoryError")


class OutOfMemoryError(Exception):
    """The model took all the memory that it may."""


def compile_model(data: bytes) -> Any:
    """ONNX bytes -> an openvino.CompiledModel on the CPU, as the backend makes it."""
    import openvino as ov

    core = ov.Core()
    return core.compile_model(core.read_model(io.BytesIO(data)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def open_if_possible(data: bytes) -> Any:
    """An ONNX Runtime session, or None if ONNX Runtime refuses the model. Raises OutOfMemoryError."""
    try:
        with naming_memory():
            return open_session(data)
    except (OutOfMemoryError, MemoryError):
        raise
    except Exception:  # ONNX Runtime's exceptions share no base of their own
        return None


def is_memory(error: Exception) -> bool:
    """Whether a library failed for lack of memory."""
    return any(text in f"{type(error).__name__} {error}" for text in _NO_MEMORY)


@contextlib.contextmanager
def naming_memory() -> Iterator[None]:
    """Turns a library's error for lack of memory into OutOfMemoryError."""
    try:
        yield
    except Exception as error:
        if is_memory(error):
            raise OutOfMemoryError from error
        raise


@contextlib.contextmanager
def explaining(name: str) -> Iterator[None]:
    """Turns ONNX Runtime's errors into a ModelError."""
    try:
        with naming_memory():
            yield
    except (DeployError, OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # ONNX Runtime's exceptions share no base of their own
        raise ModelError(f"{name} does not run: {first_line(error, 400)}") from error
