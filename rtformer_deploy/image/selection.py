"""Which pixels of a label map are asked for: some classes, some part of the frame, those that are certain enough."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError, UsageError
from ..types import LabelMap, ModelSpec
from .confidence import ConfidenceMap
from .decode import load_image

#: The id of pixels that were not asked for, as the datasets write "ignored". It has no colour and no class.
IGNORED = 255
UNSURE, UNSURE_COLOUR = "unsure", (255, 255, 255)


def with_unsure(spec: ModelSpec) -> ModelSpec:
    """A model's spec -> with one more class, "unsure", in white, for pixels of low confidence. Raises UsageError if no id is left."""
    if len(spec.classes) >= IGNORED:
        raise UsageError(f"The model has {len(spec.classes)} classes: no id is left for pixels that are unsure.")
    return dataclasses.replace(spec, classes=(*spec.classes, UNSURE), palette=(*spec.palette, UNSURE_COLOUR))


def class_ids(names: Sequence[str], classes: Sequence[str]) -> tuple[int, ...]:
    """Names that a user wrote -> class ids; upper and lower case are alike. Raises UsageError for a name that is no class's."""
    known = {name.casefold(): index for index, name in enumerate(classes)}
    unknown = [name for name in names if name.strip().casefold() not in known]
    if unknown:
        raise UsageError(f"There is no class {unknown[0]!r}.", f"There are: {', '.join(classes)}.")
    return tuple(known[name.strip().casefold()] for name in names)


def load_region(path: Path) -> NDArray[np.bool_]:
    """A mask file -> (H, W) bool: True where a pixel is not black. Raises ImageError, also if it is black everywhere."""
    region: NDArray[np.bool_] = np.any(load_image(path) > 0, axis=2)
    if not region.any():
        raise ImageError(f"{path} is black everywhere, so nothing would be looked at.", "Paint white what is to be looked at.")
    return region


def without(labels: LabelMap, hidden: Collection[int]) -> LabelMap:
    """A label map (H, W) -> the same with the pixels of these ids as IGNORED."""
    if not hidden:
        return labels
    new_ids = np.arange(256, dtype=np.uint8)
    new_ids[sorted(hidden)] = IGNORED
    return np.take(new_ids, labels)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """What to keep of label maps: the classes `only` (None: all), the pixels of `region` (None: all).

    `least_confidence` from 0 to 1: pixels below it become a class of their own, "unsure" (None: none do).
    """

    only: tuple[int, ...] | None = None
    region: NDArray[np.bool_] | None = None
    least_confidence: float | None = None

    def apply(self, labels: LabelMap, classes: int, confidence: ConfidenceMap | None = None) -> LabelMap:
        """A label map (H, W) of a model with so many classes -> the same with the pixels that are not kept as IGNORED.

        `confidence` is needed if there is a least confidence; "unsure" gets the id behind the model's classes. Raises ImageError if the
        region has another size than the frame.
        """
        if self.least_confidence is not None:
            assert confidence is not None, "a least confidence needs a confidence map"
            labels = np.where(confidence < self.least_confidence * 255, np.uint8(classes), labels)
        if self.only is not None:
            labels = without(labels, set(range(256)).difference(self.only))
        if self.region is not None:
            self._check_size(labels)
            labels = np.where(self.region, labels, np.uint8(IGNORED))
        return labels

    def _check_size(self, labels: LabelMap) -> None:
        assert self.region is not None
        if self.region.shape != labels.shape:
            raise ImageError(
                f"The mask is {self.region.shape[0]}x{self.region.shape[1]} and the frame {labels.shape[0]}x{labels.shape[1]}.",
                "The mask needs the frame's own size.",
            )
