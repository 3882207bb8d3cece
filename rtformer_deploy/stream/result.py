"""What the loop gives for a frame: the frame, its label map, and what can be made of the two. Public."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..image import frames as image
from ..types import Frame, LabelMap, ModelSpec


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """A frame and its label map, as `rtformer_deploy.segment` yields them.

    `frame` is RGB uint8 (H, W, 3), upright; `labels` uint8 (H, W) class ids of the same size. `time` is the seconds since the source
    began (None: an image), `index` the frame's number in its source, frames that were left out included. `source` is the source as it
    was given, without a password; `name` is what the command line calls the outputs. `spec` holds the classes and the palette.
    `logits` is the network's own answer, (classes, h, w) float32, if it was asked for.
    """

    frame: Frame
    labels: LabelMap
    name: str
    source: str
    index: int
    time: float | None
    spec: ModelSpec
    logits: NDArray[np.float32] | None = None

    def overlay(self, alpha: float = 0.5) -> Frame:
        """The frame with the classes' colours over it, RGB uint8 (H, W, 3). `alpha` 0: the frame alone, 1: the colours alone."""
        return image.overlay(self.frame, self.labels, self.spec.palette, alpha)
