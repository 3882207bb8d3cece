"""What a lane needs from an engine: it makes execution contexts, which run on CUDA streams and use the lane's memory."""

from __future__ import annotations

from typing import Protocol

from ..types import EngineInfo


class ExecutionContext(Protocol):
    """One run of an engine at a time. One thread at a time uses it, with the GPU's primary context current.

    A lane calls `set_batch`, then `bind` for the engine's input and its output, then `execute` any number of times. No
    run is in flight during `set_batch` and `bind`. Every call raises EngineError with the library's message if the library refuses it.
    """

    def set_batch(self, batch: int) -> None:
        """Sets how many images the next runs take."""
        ...

    def bind(self, name: str, address: int) -> None:
        """Places the tensor `name` at a device address, with the EngineInfo's shape and type and the current batch."""
        ...

    def execute(self, stream: int) -> None:
        """Enqueues one run on the CUDA stream with this handle and returns at once.

        During a capture the run becomes part of the graph. Only the first run at a batch may fail in a capture.
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
