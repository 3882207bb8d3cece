"""A runner over a network that takes any size: every frame goes in at a share of its own size."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Self

from ..errors import UsageError
from ..types import Frame, LabelMap, Logits, ModelSpec, scaled_size
from .frame_runner import FrameRunner
from .whole_logits import LogitsRunner

Size = tuple[int, int]  # (H, W)

_MOST_OPEN = 4  # frames of a folder mostly have one size, or come in a few


class ScaledRunner:
    """Frames to label maps, as a Runner's `run`, and to logits: a frame of (H, W) is seen at (H * scale, W * scale), rounded down.

    `open_at` opens the network at an input size; the last few runners stay open. `spec` is that of the recipe, whose size no frame
    needs to have. Close it, or use it as a context manager.
    """

    def __init__(self, spec: ModelSpec, scale: float, open_at: Callable[[Size], FrameRunner]) -> None:
        self.spec, self.scale = spec, scale
        self._open_at = open_at
        self._runners: OrderedDict[Size, FrameRunner] = OrderedDict()

    def run(self, frames: Sequence[Frame]) -> list[LabelMap]:
        return [self.at((frame.shape[0], frame.shape[1])).run([frame])[0] for frame in frames]

    def logits(self, frames: Sequence[Frame]) -> Logits:
        """Frames of one size -> their logits (N, classes, h, w). Raises UsageError for none, or for frames of several sizes."""
        sizes = {(frame.shape[0], frame.shape[1]) for frame in frames}
        if len(sizes) != 1:
            raise UsageError(f"Frames of {len(sizes)} sizes have no common logits.", "Ask for those of one size at a time.")
        return self.at(sizes.pop()).logits(frames)

    def at(self, size: Size) -> FrameRunner:
        """The runner for frames of (H, W) `size`. It is open until four others were asked for."""
        wanted = scaled_size(size, self.scale)
        if wanted not in self._runners:
            self._runners[wanted] = self._open_at(wanted)
        self._runners.move_to_end(wanted)
        if len(self._runners) > _MOST_OPEN:
            self._runners.popitem(last=False)[1].close()
        return self._runners[wanted]

    def close(self) -> None:
        while self._runners:
            self._runners.popitem()[1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def runner_for(runner: LogitsRunner, size: Size) -> LogitsRunner:
    """The runner that takes frames of (H, W) `size`: the same for all, or the one of a scale."""
    return runner.at(size) if isinstance(runner, ScaledRunner) else runner
