"""Label maps in, one confusion matrix and its scores out; NumPy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..types import LabelMap

Matrix = NDArray[np.int64]  # (classes, classes): rows are what the labels say, columns what was predicted


def confusion(truth: LabelMap, predicted: LabelMap, classes: int, ignore: int) -> Matrix:
    """Two label maps of one size -> how many pixels of each true class (row) were given each class (column).

    Pixels whose true id is `ignore` are not counted. Raises ValueError if the sizes differ or an id is no class.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"a label map of {truth.shape} was compared with one of {predicted.shape}")
    scored = truth != ignore
    rows, columns = truth[scored].astype(np.int64), predicted[scored].astype(np.int64)
    if rows.size and max(int(rows.max()), int(columns.max())) >= classes:
        raise ValueError(f"an id of {max(int(rows.max()), int(columns.max()))} in a label map of {classes} classes")
    return np.bincount(rows * classes + columns, minlength=classes * classes).reshape(classes, classes)


@dataclass(frozen=True, slots=True)
class Scores:
    """What one confusion matrix says. A class in neither the labels nor the predictions has no IoU (NaN) and is left out of the mean."""

    miou: float
    pixel_accuracy: float
    iou: dict[str, float]
    recall: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """`miou`, `pixel_accuracy`, and `iou` and `recall` by class name, all from 0 to 1; null for a class that does not occur."""
        return {
            "miou": _number(self.miou),
            "pixel_accuracy": _number(self.pixel_accuracy),
            "iou": {name: _number(value) for name, value in self.iou.items()},
            "recall": {name: _number(value) for name, value in self.recall.items()},
        }


def scores(matrix: Matrix, names: tuple[str, ...]) -> Scores:
    """A confusion matrix over a whole set -> mean IoU, pixel accuracy, IoU and recall by class.

    IoU is hits / (true + predicted - hits), as in the Cityscapes and VOC evaluations; never a mean of per-image values.
    """
    hits, true, predicted = np.diag(matrix).astype(float), matrix.sum(1).astype(float), matrix.sum(0).astype(float)
    iou = _ratio(hits, true + predicted - hits)
    recall = _ratio(hits, true)
    miou = float(np.nanmean(iou)) if np.isfinite(iou).any() else float("nan")
    accuracy = float(hits.sum() / matrix.sum()) if matrix.sum() else float("nan")
    return Scores(miou, accuracy, dict(zip(names, iou.tolist(), strict=True)), dict(zip(names, recall.tolist(), strict=True)))


def _ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 6)
