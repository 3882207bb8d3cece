"""How well the borders between classes of two label maps agree: the boundary F-score.

G. Csurka, D. Larlus, F. Perronnin, "What is a good evaluation measure for semantic segmentation?", BMVC 2013: for every class, the
share of each map's border pixels that lie within a distance of the other's border; their harmonic mean; the mean over the classes.
The distance is the article's 0.75 % of the image's diagonal (4.5 pixels at 360x480, 8.6 at 512x1024).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from ..types import LabelMap

TOLERANCE = 0.0075  # of the diagonal


def tolerance(size: tuple[int, int]) -> float:
    """A label map's (H, W) -> the distance in pixels within which border pixels match."""
    return TOLERANCE * math.hypot(*size)


def border(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels of a mask (H, W) that have a neighbour (of four) outside it; the edge of the picture does not count as outside."""
    edge = np.zeros_like(mask)
    edge[1:] |= mask[1:] & ~mask[:-1]
    edge[:-1] |= mask[:-1] & ~mask[1:]
    edge[:, 1:] |= mask[:, 1:] & ~mask[:, :-1]
    edge[:, :-1] |= mask[:, :-1] & ~mask[:, 1:]
    return edge


@dataclass(slots=True)
class Borders:
    """Border pixels counted over any number of pairs of label maps: `counts` (classes, 4) holds, by class, A's border pixels, how
    many of them are near B's border, B's border pixels, and how many of them are near A's border."""

    classes: int
    counts: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.counts = np.zeros((self.classes, 4), np.int64)

    def add(self, a: LabelMap, b: LabelMap) -> None:
        """Counts one pair of label maps (H, W) of one size."""
        distance = tolerance((a.shape[0], a.shape[1]))
        for index in np.union1d(np.unique(a), np.unique(b)).tolist():
            one, other = border(a == index), border(b == index)
            matched = (_near(one, other, distance), _near(other, one, distance))
            self.counts[index] += (int(one.sum()), matched[0], int(other.sum()), matched[1])

    def score(self) -> float:
        """The F-score, 0 to 1, as the mean over the classes that have a border in either map; NaN if none has."""
        scores = [_f_score(row) for row in self.counts if row[0] or row[2]]
        return float(np.mean(scores)) if scores else float("nan")


def _near(points: NDArray[np.bool_], others: NDArray[np.bool_], distance: float) -> int:
    """How many of the points lie within the (Euclidean) distance of any of the others."""
    if not points.any() or not others.any():
        return 0
    away = cv2.distanceTransform((~others).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return int((away[points] <= distance).sum())


def _f_score(row: NDArray[np.int64]) -> float:
    in_a, matched_a, in_b, matched_b = (int(count) for count in row)
    if not in_a or not in_b or not (matched_a or matched_b):
        return 0.0
    precision, recall = matched_a / in_a, matched_b / in_b
    return 2 * precision * recall / (precision + recall)
