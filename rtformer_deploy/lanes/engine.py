"""What a lane needs of an engine: an open engine that makes execution contexts, which run on CUDA streams over memory of the lane's."""

from __future__ import annotations

from typing import Protocol

from ..types import EngineInfo


class ExecutionContext(Protocol):
    """One run of an engine at a time. One thread at a time uses it, with the GPU's primary context current.

    A lane calls `set_batch`, then `bind` for the engine's input and its output, then `execute` as often as it likes; nothing of the
    context's is in flight while it sets or binds. Every call raises EngineError, with the library's own words, if the library refuses it.
    """

    def set_batch(self, batch: int) -> None:
        """Sets how many images the next runs take."""
        ...

    def bind(self, name: str, address: int) -> None:
        """Has the tensor `name` lie at a device address, in the shape and type that the engine's EngineInfo says, for the batch set."""
        ...

    def execute(self, stream: int) -> None:
        """Enqueues one run on the CUDA stream with this handle and returns at once.

        While the stream is captured, the run becomes part of the graph. Only the first run of a batch may fail in a capture.
        """
        ...


class CudaEngine(Protocol):
    """An open engine, which any number of lanes share. It lives as long as any of its contexts."""

    @property
    def info(self) -> EngineInfo:
        """What the engine is: its tensors, its batch and the model it came from."""
        ...

    def create_context(self) -> ExecutionContext:
        """A new execution context with device memory of its own. Raises EngineError. The GPU's primary context is current."""
        ...
