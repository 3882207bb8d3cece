"""Two runners and images -> the first stage in which they differ, which pixels change class, and what that costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DatasetError, GateError, ImageError, ModelError
from ..image.odd_files import OddFiles
from ..runtime.frame_runner import FrameRunner
from ..types import Frame, LabelMap, Progress, no_progress
from .boundary import Borders
from .metrics import Matrix, Scores, confusion, scores
from .stages import STAGES, Compared, Stage, compare_image


@dataclass(frozen=True, slots=True)
class Item:
    """One image: its name, how to decode it, and its labels if there are any."""

    name: str
    decode: Callable[[], Frame]
    label: Callable[[], LabelMap] | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """One image's frame (H, W, 3) and masks (H, W): the pixels whose class changed, and those whose margin is within the threshold (None:
    no threshold is known)."""

    frame: Frame
    changed: NDArray[np.bool_]
    near: NDArray[np.bool_] | None


@dataclass(slots=True)
class Verification:
    """The result over all images. `within` counts the changed pixels whose margin in A is at most the threshold (`margin`, or twice
    each image's largest logit difference); None if A has no logits or no threshold is known. `matrices` are A's and B's."""

    a: str
    b: str
    classes: tuple[str, ...]
    margin: float | None
    stages: dict[str, tuple[Stage, str]] = field(default_factory=dict)
    images: int = 0
    pixels: int = 0
    changed: int = 0
    within: int | None = 0
    boundary: float = float("nan")
    matrices: tuple[Matrix, Matrix] | None = None
    worst: str = ""
    worst_share: float = -1.0
    worst_changes: Changes | None = None

    @property
    def first_difference(self) -> str | None:
        """The first stage that differs in any image; None if none does."""
        return next((name for name in STAGES if self.stages[name][0].differs), None)

    @property
    def flips(self) -> float:
        """The share of pixels whose class changed, 0 to 1."""
        return self.changed / self.pixels

    @property
    def scores(self) -> tuple[Scores, Scores] | None:
        """A's and B's scores against the labels; None without labels."""
        if self.matrices is None:
            return None
        return scores(self.matrices[0], self.classes), scores(self.matrices[1], self.classes)

    @property
    def drop(self) -> float | None:
        """By how many points (percent) of mIoU B lies below A; None without labels."""
        both = self.scores
        return None if both is None else 100 * (both[0].miou - both[1].miou)

    def to_json(self) -> dict[str, Any]:
        """Everything but the changes; shares are from 0 to 1, `miou_drop` is in points."""
        both = self.scores
        stages = [
            {"stage": name, "differs": stage.differs, "difference": _finite(stage.difference), "detail": stage.detail, "image": image}
            for name, (stage, image) in self.stages.items()
        ]
        return {
            "a": self.a,
            "b": self.b,
            "images": self.images,
            "first_difference": self.first_difference,
            "stages": stages,
            "flips": self.flips,
            "flips_within_margin": None if self.within is None else self.within / self.pixels,
            "margin": self.margin,
            "boundary_f_score": _finite(self.boundary),
            "miou_drop": self.drop,
            "a_scores": both and both[0].to_json(),
            "b_scores": both and both[1].to_json(),
            "worst_image": self.worst,
        }


def verify(
    a: FrameRunner, b: FrameRunner, items: Sequence[Item], *, names: tuple[str, str] = ("A", "B"),
    margin: float | None = None, ignore: int = 255, odd: OddFiles | None = None, progress: Progress = no_progress,
) -> Verification:  # fmt: skip
    """Two runners with the same number of classes and images -> what differs. `margin` is in units of the logits.

    An image that cannot be read goes to `odd`, and the others are compared. Raises ModelError if the classes differ in number,
    ImageError if no image is left, or without `odd` for the first that cannot be read; DatasetError for a pair that cannot be read, or if
    no pixel of the labels has a class.
    """
    classes = a.spec.classes
    if len(classes) != len(b.spec.classes):
        raise ModelError(f"A tells {len(classes)} classes apart and B {len(b.spec.classes)}: their label maps cannot be compared.")
    if not items:
        raise ImageError("There is no image to compare on.")
    result, borders, odd = Verification(*names, classes, margin), Borders(len(classes)), odd or OddFiles()
    odd.total = len(items)
    for done, item in enumerate(items, 1):
        try:
            compared = compare_image(a, b, item.decode)
        except ImageError as error:
            odd.add(error)
            continue
        _count(result, compared, item.name)
        borders.add(compared.labels_a, compared.labels_b)
        if item.label is not None:
            _score(result, compared, item.label(), ignore)
        progress("verify", done, len(items))
    if not result.images:
        raise ImageError(odd.title(), details=odd.lines())
    if result.matrices is not None and not result.matrices[0].any():
        raise DatasetError(
            "There is nothing to score: all pixels of the labels are ignored.", "Leave the dataset out, or correct its file."
        )
    result.boundary = borders.score()
    return result


def check_gates(found: Verification, max_flips: float | None, max_drop: float | None) -> None:
    """Raises GateError, naming every bound that is exceeded: `max_flips` a share from 0 to 1, `max_drop` in points of mIoU."""
    failed = []
    if max_flips is not None and not found.flips <= max_flips:
        failed.append(f"{found.flips:.4%} of the pixels change class, more than --max-flips {max_flips:.4%}.")
    if max_drop is not None and not (found.drop is not None and found.drop <= max_drop):
        failed.append(f"mIoU drops by {found.drop:.2f} points, more than --max-drop {max_drop:g}.")
    if failed:
        first = found.first_difference
        raise GateError(" ".join(failed), f"The first stage that differs is {first}." if first else None)


def _count(result: Verification, compared: Compared, name: str) -> None:
    for stage in compared.stages:
        before = result.stages.get(stage.name)
        if before is None or (bool(stage.differs), stage.difference) > (bool(before[0].differs), before[0].difference):
            result.stages[stage.name] = stage, name
    changed = compared.labels_a != compared.labels_b
    count = int(changed.sum())
    near = _near(compared, result.margin)
    result.images, result.pixels, result.changed = result.images + 1, result.pixels + changed.size, result.changed + count
    result.within = None if near is None or result.within is None else result.within + int((changed & near).sum())
    if count / changed.size > result.worst_share:
        result.worst, result.worst_share = name, count / changed.size
        result.worst_changes = Changes(compared.frame, changed, near)


def _near(compared: Compared, margin: float | None) -> NDArray[np.bool_] | None:
    """The pixels whose two best classes are within the threshold."""
    bound = margin if margin is not None else None if compared.largest is None else 2 * compared.largest
    return None if compared.margin is None or bound is None else compared.margin <= bound


def _score(result: Verification, compared: Compared, label: LabelMap, ignore: int) -> None:
    one, other = (confusion(label, labels, len(result.classes), ignore) for labels in (compared.labels_a, compared.labels_b))
    result.matrices = (one, other) if result.matrices is None else (result.matrices[0] + one, result.matrices[1] + other)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
