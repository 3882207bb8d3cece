"""Label maps as COCO annotations: for each frame one annotation a class, its pixels as run lengths (RLE), as COCO-Stuff has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..types import LabelMap


def run_lengths(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """A mask (H, W) -> COCO's uncompressed RLE: lengths of runs down the columns, the first of them outside the mask."""
    flat = np.concatenate([[False], mask.ravel(order="F"), [False]])
    changes = np.flatnonzero(flat[1:-1] != flat[:-2])
    counts = np.diff(np.concatenate([[0], changes, [mask.size]]))
    return {"size": list(mask.shape), "counts": counts.tolist()}


class CocoFrames:
    """Frames as COCO's images and annotations, which count from 1. Category ids are the label maps' class ids.

    `categories` and `images` are those lists of the document. Annotations are given out frame by frame, because there are many.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._count = 0
        self.images: list[dict[str, Any]] = []
        self.categories = [{"id": index, "name": name, "supercategory": name} for index, name in enumerate(names)]

    def add(self, file_name: str, labels: LabelMap) -> list[dict[str, Any]]:
        """Adds a frame's label map (H, W) and returns its annotations; ids that are no class's (255, "ignored") have none."""
        height, width = labels.shape
        image = len(self.images) + 1
        self.images.append({"id": image, "file_name": file_name, "height": height, "width": width})
        found = [index for index in np.unique(labels).tolist() if index < len(self._names)]
        first, self._count = self._count + 1, self._count + len(found)
        return [{"id": first + place, "image_id": image, **_annotation(labels == index, index)} for place, index in enumerate(found)]


def _annotation(mask: NDArray[np.bool_], index: int) -> dict[str, Any]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    box = [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]
    return {"category_id": index, "segmentation": run_lengths(mask), "area": int(mask.sum()), "bbox": box, "iscrowd": 0}
