"""The contract that every opened engine or network keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self

from ..types import Frame, LabelMap, Logits, ModelSpec, Ticket


class Runner(Protocol):
    """Frames in, label maps out; the same contract for every backend. A context manager.

    A frame is RGB uint8 (H, W, 3) of any size; a label map is uint8 (H, W) at the frame's own size.
    """

    spec: ModelSpec

    def frame(self, size: tuple[int, int]) -> Frame:
        """A frame of (H, W) to write into, with any content. A GPU's engine takes it without a copy: do not change it before its result."""
        ...

    def run(self, frames: Sequence[Frame]) -> list[LabelMap]: ...

    def logits(self, frames: Sequence[Frame]) -> Logits:
        """The engine's logits (N, classes, h, w) as float32; an engine built with `--head labels` has none and raises an error."""
        ...

    def submit(self, frames: Sequence[Frame]) -> Ticket:
        """Starts frames (at most the engine's largest batch) and returns at once; `result` waits for these frames only."""
        ...

    def result(self, ticket: Ticket) -> list[LabelMap]: ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...
