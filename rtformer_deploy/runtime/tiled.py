"""A runner that cuts large frames into overlapping tiles, each as large as the frames that the engine is meant for."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Self

import numpy as np

from ..errors import UsageError
from ..image.tiles import join_tiles, tile_windows
from ..types import Frame, LabelMap, Logits, ModelSpec, Ticket
from .frame_checks import check_size
from .whole_logits import LogitsRunner, check_has_logits


class TiledRunner:
    """Implements `runner.Runner`: frames larger than the engine's (`spec.frame_size`) go through it tile by tile, others as usual.

    Tiles overlap by at least `overlap` pixels, and their logits are blended there. An engine built with `--head labels` has no
    logits and raises UsageError. The runner inside stays the caller's, who closes it.
    """

    def __init__(self, runner: LogitsRunner, overlap: int) -> None:
        check_has_logits(runner.spec, "Tiles need")
        tile_windows(runner.spec.frame_size, runner.spec.frame_size, overlap)
        self._runner, self._overlap = runner, overlap
        self.spec: ModelSpec = runner.spec
        self.threads: int | None = getattr(runner, "threads", None)
        self._numbers = itertools.count(1)
        self._done: dict[int, list[LabelMap]] = {}

    def frame(self, size: tuple[int, int]) -> Frame:
        check_size(size)
        return np.empty((*size, 3), np.uint8)  # tiles are cut out of it, so it is read on the CPU

    def run(self, frames: Sequence[Frame]) -> list[LabelMap]:
        return [self._label(frame) for frame in frames]

    def logits(self, frames: Sequence[Frame]) -> Logits:
        raise UsageError("Tiles have no logits of the whole frame.", "Leave --tiles out, or what needs logits.")

    def submit(self, frames: Sequence[Frame]) -> Ticket:
        """Runs the frames; `result` gives their label maps. What goes on beside the caller goes on within, from tile to tile."""
        ticket = Ticket(next(self._numbers))
        self._done[ticket.number] = self.run(frames)
        return ticket

    def result(self, ticket: Ticket) -> list[LabelMap]:
        if ticket.number not in self._done:
            raise UsageError(f"Ticket {ticket.number} is unknown here, or its result was taken already.")
        return self._done.pop(ticket.number)

    def close(self) -> None:
        """Forgets the results that nobody took."""
        self._done.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _label(self, frame: Frame) -> LabelMap:
        spec = self.spec
        size = (frame.shape[0], frame.shape[1])
        windows = tile_windows(size, spec.frame_size, self._overlap)
        if len(windows) == 1:
            return self._runner.run([frame])[0]
        tiles = [frame[part.top : part.top + part.height, part.left : part.left + part.width] for part in windows]
        logits = self._runner.logits(tiles)
        return join_tiles(size, windows, list(logits), spec.size, spec.resize, corners=spec.resize_corners, threads=self.threads)
