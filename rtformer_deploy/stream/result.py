"""What the loop gives for a frame: the frame, its label map, and what can be made of the two. Public."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..image import frames as image
from ..image.areas import ClassArea, class_areas
from ..image.confidence import ConfidenceMap
from ..image.legend import draw_legend
from ..image.polygons import Polygon, polygons_of
from ..lanes.surfaces import GpuFrame, on_host
from ..types import Frame, LabelMap, ModelSpec


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """A frame and its label map, as `rtformer_deploy.segment` yields them.

    `frame` is RGB uint8 (H, W, 3), upright; `labels` uint8 (H, W) class ids of the same size. `time` is the seconds since the source
    began (None: an image), `index` the frame's number in its source, frames that were left out included. `source` is the source as it
    was given, without a password; `name` is what the command line calls the outputs. `spec` holds the classes and the palette.
    `logits` is the network's own answer, (classes, h, w) float32, and `confidence` how sure each pixel's class is, uint8 (H, W), 255 times
    its softmax: both only if they were asked for. A label of 255 is a pixel that was not asked for.

    `picture` is the frame where it was made: what `frame` gives, or a frame on the GPU, which `frame` copies when it is first read.
    """

    picture: Frame | GpuFrame
    labels: LabelMap
    name: str
    source: str
    index: int
    time: float | None
    spec: ModelSpec
    logits: NDArray[np.float32] | None = None
    confidence: ConfidenceMap | None = None

    @property
    def frame(self) -> Frame:
        """The frame in host memory, RGB uint8 (H, W, 3)."""
        return on_host(self.picture)

    def overlay(self, alpha: float = 0.5, *, legend: bool = False) -> Frame:
        """The frame with the classes' colours over it, RGB uint8 (H, W, 3). `alpha` 0: the frame alone, 1: the colours alone."""
        drawn = image.overlay(self.frame, self.labels, self.spec.palette, alpha)
        return draw_legend(drawn, self.labels, self.spec.classes, self.spec.palette) if legend else drawn

    def areas(self) -> tuple[ClassArea, ...]:
        """Each class's pixels in the frame and its share, in the order of the classes."""
        return class_areas(self.labels, self.spec.classes)

    def polygons(self, tolerance: float = 0.0) -> list[Polygon]:
        """The connected areas as polygons with holes, along the pixels' edges; above `tolerance` 0 (pixels) with fewer corners."""
        return polygons_of(self.labels, tolerance)
