"""Copies between a lane's device memory and pinned memory, as steps of a request."""

from __future__ import annotations

from typing import Any

from ..nvidia.graph_copies import GraphCopy
from .pinned import PinnedBlock


class HostCopy:
    """A copy between one part of a lane's device memory and pinned memory; calling it enqueues it.

    The device's side, a cuda.core buffer, stays. The pinned side is `start` bytes into `block`, which each request sets as it needs.
    """

    __slots__ = ("_stream", "block", "device", "inwards", "size", "start")

    def __init__(self, stream: Any, device: Any, *, inwards: bool) -> None:
        self._stream, self.device, self.inwards = stream, device, inwards
        self.size = int(device.size)
        self.block: PinnedBlock | None = None
        self.start = 0

    @property
    def address(self) -> int:
        """The address of the pinned side."""
        assert self.block is not None, "the pinned side was not set"
        return self.block.address + self.start

    def set(self, block: PinnedBlock, start: int = 0) -> None:
        """Where the pinned side is from now on."""
        self.block, self.start = block, start

    def __call__(self) -> None:
        assert self.block is not None, "the pinned side was not set"
        pinned = self.block.part(self.start, self.size)
        if self.inwards:
            self.device.copy_from(pinned, stream=self._stream)
        else:
            self.device.copy_to(pinned, stream=self._stream)

    def captured(self) -> GraphCopy:
        """This copy in the graph that is being captured. Call it right after the copy was enqueued. Raises EngineError."""
        return GraphCopy(int(self._stream.handle), self.address)
