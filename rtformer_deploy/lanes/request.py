"""One request of a lane as steps: the content of its CUDA graph, and how to test that graph."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..nvidia.graph_copies import GraphCopy
from .buffers import TensorBuffers
from .host_copies import HostCopy
from .pinned import PinnedBlock, PinnedMemory

Step = Callable[[], None]
_NONSENSE = 0xA5  # as float32 -2.9e-16, as float16 -0.02
_OTHER_INPUT = 0x3D  # as float32 0.046, as float16 1.3


@dataclass(slots=True)
class LaneWork:
    """Implements `graphs.Work`: `steps` enqueue the work, `refeed` enqueues the request's own input again, `rest` waits for the stream.

    Steps that are HostCopies bring the frames to the device and label maps back. If the frames come that way, the other input is the
    same frames inverted; otherwise the engine's input itself is overwritten. `maps` are the parts of the labels' memory that are label
    maps. The test of a graph moves the pinned side of every copy to memory of `pinned`, so it shows too that they can be moved.
    `key` says which graph it is, `name` what notes call it.
    """

    key: Hashable
    name: str

    stream: Any
    steps: Sequence[Step]
    refeed: Step
    rest: Step
    source: TensorBuffers
    target: TensorBuffers
    batch: int
    pinned: PinnedMemory
    maps: Sequence[slice] = ()
    copies: tuple[HostCopy, ...] = field(init=False)
    _own: list[tuple[PinnedBlock, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.copies = tuple(step for step in self.steps if isinstance(step, HostCopy))

    def enqueue(self) -> None:
        for step in self.steps:
            step()

    def capture(self) -> list[GraphCopy]:
        captured = []
        for step in self.steps:
            step()
            if isinstance(step, HostCopy):
                captured.append(step.captured())
        return captured

    def feed(self, *, other: bool) -> None:
        if other:
            self._move_aside()
        elif self._own:
            self._move_back()
        if not any(copy.inwards for copy in self.copies):
            if other:
                self.source.fill(_OTHER_INPUT, self.stream)
            else:
                self.refeed()

    def spoil(self) -> None:
        self.target.fill(_NONSENSE, self.stream)
        for copy in self._copies_out():
            copy.device.fill(_NONSENSE, stream=self.stream)
            _bytes_of(copy)[...] = _NONSENSE

    def read(self) -> list[NDArray[Any]]:
        self.target.to_host(self.stream)
        self.rest()
        maps = [_bytes_of(copy)[part].copy() for copy in self._copies_out() for part in self.maps]
        return [self.target.array[: self.batch].copy(), *maps]

    def _copies_out(self) -> list[HostCopy]:
        return [copy for copy in self.copies if not copy.inwards]

    def _move_aside(self) -> None:
        """Gives every copy other pinned memory, that of the frames with the other input."""
        for copy in self.copies:
            assert copy.block is not None
            other = self.pinned.take(copy.size)
            if copy.inwards:
                np.bitwise_not(_bytes_of(copy), out=other.array[: copy.size])
            self._own.append((copy.block, copy.start))
            copy.set(other)

    def _move_back(self) -> None:
        """Gives every copy its own pinned memory again."""
        others = []
        for copy, own in zip(self.copies, self._own, strict=False):  # fewer if there was no memory for all
            assert copy.block is not None
            others.append(copy.block)
            copy.set(*own)
        self._own.clear()
        self.rest()  # a copy from there may be under way
        for block in others:
            self.pinned.leave(block)


def _bytes_of(copy: HostCopy) -> NDArray[np.uint8]:
    """The pinned side of a copy."""
    assert copy.block is not None
    return copy.block.array[copy.start : copy.start + copy.size]
