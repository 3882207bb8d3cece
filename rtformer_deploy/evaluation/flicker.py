"""How much a video's label maps flicker: pixels that change class from a frame to the next although the picture hardly changed there."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..types import Frame, LabelMap

#: A pixel is still if the mean of its channels' differences to the frame before is below this, of 255.
THRESHOLD = 4.0


class Flicker:
    """Counts still pixels and those of them that change class, frame by frame, by the class that they had before.

    A pixel is still if the mean difference of its R, G and B to the frame before is below `threshold`. A frame of another size begins
    anew. `times` and `shares` have one value for each frame that has one before it.
    """

    def __init__(self, classes: int, threshold: float = THRESHOLD) -> None:
        self.threshold = threshold
        self.still = np.zeros(classes, np.int64)
        self.changed = np.zeros(classes, np.int64)
        self.times, self.shares = array("d"), array("d")
        self._before: tuple[Frame, LabelMap] | None = None

    def add(self, frame: Frame, labels: LabelMap, time: float) -> None:
        """Counts a frame RGB (H, W, 3) and its labels (H, W) against the ones before."""
        before, self._before = self._before, (frame, labels)
        if before is None or before[1].shape != labels.shape:
            return
        still = still_pixels(before[0], frame, self.threshold)
        kept = np.bincount(before[1][still], minlength=256)[: len(self.still)]
        changed = np.bincount(before[1][still & (before[1] != labels)], minlength=256)[: len(self.still)]
        self.still += kept
        self.changed += changed
        self.times.append(time)
        self.shares.append(changed.sum() / max(kept.sum(), 1))

    @property
    def share(self) -> float | None:
        """The share of the still pixels that change class, over all frames; None if no pixel was still."""
        still = int(self.still.sum())
        return int(self.changed.sum()) / still if still else None

    def by_class(self) -> list[float | None]:
        """The same for each class, of the pixels that had it before."""
        return [int(changed) / int(still) if still else None for changed, still in zip(self.changed, self.still, strict=True)]

    def to_json(self, names: Sequence[str]) -> dict[str, Any]:
        """All of it, ready for JSON."""
        classes = {
            name: {"still_pixels": int(still), "share": share}
            for name, still, share in zip(names, self.still, self.by_class(), strict=True)
        }
        frames = [{"time": time, "share": share} for time, share in zip(self.times, self.shares, strict=True)]
        return {"threshold": self.threshold, "share": self.share, "classes": classes, "frames": frames}


def still_pixels(before: Frame, frame: Frame, threshold: float) -> NDArray[np.bool_]:
    """Two frames RGB (H, W, 3) -> which pixels hardly changed, (H, W)."""
    differences = np.where(before > frame, before - frame, frame - before)
    total = differences[..., 0].astype(np.uint16)
    total += differences[..., 1]
    total += differences[..., 2]
    still: NDArray[np.bool_] = total < 3 * threshold
    return still
