"""A runner that cuts large frames into overlapping tiles of the engine's size."""

from __future__ import annotations

from collections.abc import Sequence

from ..image.tiles import join_tiles, tile_windows
from ..types import Frame, LabelMap, ModelSpec
from .whole_logits import LogitsRunner, check_has_logits


class TiledRunner:
    """Frames to label maps, as a Runner's `run`: frames larger than the engine go through it tile by tile, others as usual.

    Tiles overlap by at least `overlap` pixels, and their logits are blended there. An engine built with `--head labels` has no
    logits and raises EngineError. The runner stays the caller's, who closes it.
    """

    def __init__(self, runner: LogitsRunner, overlap: int) -> None:
        check_has_logits(runner.spec, "Tiles")
        tile_windows(runner.spec.size, runner.spec.size, overlap)
        self._runner, self._overlap = runner, overlap
        self.threads: int | None = getattr(runner, "threads", None)

    @property
    def spec(self) -> ModelSpec:
        return self._runner.spec

    def run(self, frames: Sequence[Frame]) -> list[LabelMap]:
        return [self._label(frame) for frame in frames]

    def _label(self, frame: Frame) -> LabelMap:
        spec = self.spec
        size = (frame.shape[0], frame.shape[1])
        windows = tile_windows(size, spec.size, self._overlap)
        if len(windows) == 1:
            return self._runner.run([frame])[0]
        tiles = [frame[part.top : part.top + part.height, part.left : part.left + part.width] for part in windows]
        logits = self._runner.logits(tiles)
        return join_tiles(size, windows, list(logits), spec.size, spec.resize, threads=self.threads)
