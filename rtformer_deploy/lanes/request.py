"""One request of a lane as steps: the content of its CUDA graph, and how to test that graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .buffers import PairedMemory, TensorBuffers

Step = Callable[[], None]
_NONSENSE = 0xA5  # as float32 -2.9e-16, as float16 -0.02
_OTHER_INPUT = 0x3D  # as float32 0.046, as float16 1.3


@dataclass(slots=True)
class LaneWork:
    """Implements `graphs.Work`: `steps` enqueue the work, `refeed` enqueues the request's own input again, `rest` waits for the stream.

    If `frames` is set, the steps begin with the frames' copy to the device, and the other input is the same frames inverted. Otherwise
    the engine's input itself is overwritten. If the steps end with label maps in host memory, `labels` is that memory and `maps` are
    arrays over it.
    """

    stream: Any
    steps: Sequence[Step]
    refeed: Step
    rest: Step
    source: TensorBuffers
    target: TensorBuffers
    frames: PairedMemory | None
    labels: PairedMemory | None
    maps: Sequence[NDArray[np.uint8]]
    batch: int
    _inverted: bool = False

    def enqueue(self) -> None:
        for step in self.steps:
            step()

    def feed(self, *, other: bool) -> None:
        if self.frames is None:
            if other:
                self.source.fill(_OTHER_INPUT, self.stream)
            else:
                self.refeed()
        elif other != self._inverted:
            self.rest()  # a copy from there may be under way
            np.bitwise_not(self.frames.host, out=self.frames.host)
            self._inverted = other

    def spoil(self) -> None:
        self.target.fill(_NONSENSE, self.stream)
        if self.labels is not None:
            self.labels.fill(_NONSENSE, self.stream)
            for labels in self.maps:
                labels[...] = _NONSENSE

    def read(self) -> list[NDArray[Any]]:
        self.target.to_host(self.stream)
        self.rest()
        return [self.target.array[: self.batch].copy(), *(labels.copy() for labels in self.maps)]
