"""Which pixels of a label map are asked for: some classes, some part of the frame, those that are certain enough."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError, UsageError
from ..types import LabelMap, ModelSpec
from .confidence import ConfidenceMap
from .decode import load_image

#: The id of pixels that were not asked for, as the datasets write "ignored". It has no colour and no class.
IGNORED = 255
UNSURE, UNSURE_COLOUR = "unsure", (128, 128, 128)


def with_unsure(spec: ModelSpec) -> ModelSpec:
    """A model's spec -> with one more class, "unsure", in grey, for pixels of low confidence. Raises UsageError if no id is left for it."""
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


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """What to keep of label maps: the classes `only` (None: all), the pixels of `region` (None: all), and which are certain enough.

    `unsure` is (least confidence in 0..1, the id for pixels below it); None: none are.
    """

    only: tuple[int, ...] | None = None
    region: NDArray[np.bool_] | None = None
    unsure: tuple[float, int] | None = None

    def apply(self, labels: LabelMap, confidence: ConfidenceMap | None = None) -> LabelMap:
        """A label map (H, W), with its confidence map if `unsure` is asked for -> the same with the pixels that are not kept as IGNORED.

        Raises ImageError if the region has another size than the frame.
        """
        if self.unsure is not None:
            assert confidence is not None, "unsure needs a confidence map"
            least, index = self.unsure
            labels = np.where(confidence < least * 255, np.uint8(index), labels)
        if self.only is not None:
            keep = np.zeros(256, bool)
            keep[list(self.only)] = True
            labels = np.where(keep[labels], labels, np.uint8(IGNORED))
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
