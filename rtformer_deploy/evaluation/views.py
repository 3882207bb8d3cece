"""How frames are looked at for a prediction: as a whole, averaged with their mirror image, or in tiles."""

from __future__ import annotations

from dataclasses import dataclass

from ..runtime.augmented import AugmentedRunner
from ..runtime.frame_runner import FrameRunner
from ..runtime.tiled import TiledRunner
from .evaluate import Predictor


@dataclass(frozen=True, slots=True)
class Views:
    """`flip`: averaged with the mirror image; `tiles`: the overlap of tiles in pixels (None: as a whole)."""

    flip: bool = False
    tiles: int | None = None


def predictor(runner: FrameRunner, views: Views) -> Predictor:
    """A runner -> what predicts: itself, or views of each frame through it. Raises UsageError for an engine that has no logits."""
    if views.tiles is not None:
        return TiledRunner(runner, views.tiles)
    return AugmentedRunner([runner], flip=True) if views.flip else runner
