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


class CocoDocument:
    """Collects frames and gives one COCO document. Category ids are the label maps' class ids; images and annotations count from 1."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(self, file_name: str, labels: LabelMap) -> None:
        """Adds a frame's label map (H, W); ids that are no class's (255, "ignored") are left out."""
        height, width = labels.shape
        image = len(self._images) + 1
        self._images.append({"id": image, "file_name": file_name, "height": height, "width": width})
        for index in np.unique(labels).tolist():
            if index < len(self._names):
                self._annotations.append({"id": len(self._annotations) + 1, "image_id": image, **_annotation(labels == index, index)})

    def to_json(self) -> dict[str, Any]:
        """The document: images, categories, annotations."""
        categories = [{"id": index, "name": name, "supercategory": name} for index, name in enumerate(self._names)]
        return {"images": self._images, "categories": categories, "annotations": self._annotations}


def _annotation(mask: NDArray[np.bool_], index: int) -> dict[str, Any]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    box = [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]
    return {"category_id": index, "segmentation": run_lengths(mask), "area": int(mask.sum()), "bbox": box, "iscrowd": 0}
