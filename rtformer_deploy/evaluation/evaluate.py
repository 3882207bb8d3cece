"""A Runner and a labelled dataset -> one confusion matrix over the whole set, and its scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..datasets import Dataset
from ..errors import DatasetError
from ..types import Frame, LabelMap, ModelSpec, Progress, no_progress
from .metrics import Matrix, Scores, confusion, scores


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The scores of one model on one split. `matrix` counts pixels: a row is what the labels say, a column what was predicted.

    `note` says what a reader must know before comparing; empty if there is nothing.
    """

    model: str
    dataset: str
    split: str
    frames: int
    names: tuple[str, ...]
    matrix: Matrix
    note: str = ""

    @property
    def scores(self) -> Scores:
        """Mean IoU, pixel accuracy, IoU and recall by class."""
        return scores(self.matrix, self.names)

    def to_json(self) -> dict[str, Any]:
        """`miou`, `pixel_accuracy`, `iou` and `recall` by class name, where they are from, and the confusion matrix."""
        where = {"model": self.model, "dataset": self.dataset, "split": self.split, "frames": self.frames}
        return (
            self.scores.to_json() | where | {"classes": list(self.names), "confusion": self.matrix.tolist()} | {"note": self.note or None}
        )


class Predictor(Protocol):
    """As much of a Runner as evaluation needs."""

    @property
    def spec(self) -> ModelSpec: ...

    def run(self, frames: Sequence[Frame]) -> list[LabelMap]: ...


def evaluate(
    runner: Predictor, dataset: Dataset, progress: Progress = no_progress, watch: Callable[[LabelMap], None] = lambda labels: None
) -> Evaluation:
    """Runs every frame of a split and counts the predicted class of every pixel, at each label's own size.

    `watch` gets each frame's label map, in the order of the split. Raises DatasetError if the model has another number of classes
    than the dataset, a pair cannot be read, or no pixel of the split has a class.
    """
    check_classes(runner.spec, dataset)
    matrix = count(runner, dataset, range(len(dataset)), progress, watch)
    return conclude(runner.spec, dataset, matrix)


def count(
    runner: Predictor,
    dataset: Dataset,
    indices: range,
    progress: Progress = no_progress,
    watch: Callable[[LabelMap], None] = lambda labels: None,
) -> Matrix:
    """Runs some frames of a split and counts the predicted class of every pixel. The matrices of its parts add up to the split's.

    Raises DatasetError if a pair cannot be read.
    """
    classes = len(dataset.labels.names)
    matrix = np.zeros((classes, classes), np.int64)
    done = 0
    for frames, labels in _chunks(dataset, indices, max(1, getattr(runner, "max_batch", 1)) * 4):
        for label, predicted in zip(labels, runner.run(frames), strict=True):
            matrix += confusion(label, predicted, classes, dataset.labels.ignore_index)
            watch(predicted)
        done += len(frames)
        progress("evaluate", done, len(indices))
    return matrix


def conclude(spec: ModelSpec, dataset: Dataset, matrix: Matrix) -> Evaluation:
    """A split's confusion matrix -> its evaluation. Raises DatasetError if no pixel of the split has a class."""
    names = dataset.labels.names
    if not matrix.any():
        raise DatasetError(f"There is nothing to score in the {dataset.split!r} split of {dataset.name}: all its pixels are ignored.")
    return Evaluation(spec.name, dataset.name, dataset.split, len(dataset), names, matrix, _note(names, spec.classes, matrix))


def check_classes(spec: ModelSpec, dataset: Dataset) -> None:
    """Raises DatasetError if a model has another number of classes than a dataset."""
    count, own = len(spec.classes), len(dataset.labels.names)
    if count != own:
        raise DatasetError(
            f"{spec.name} tells {count} classes apart and {dataset.name} has {own}: nothing can be compared.",
            "Evaluate on the dataset that the model was trained for.",
        )


def _chunks(dataset: Dataset, indices: range, size: int) -> Iterator[tuple[list[Frame], list[LabelMap]]]:
    """The pairs in order, `size` at a time; the next ones are read while these are used."""
    starts = range(0, len(indices), size)
    with ThreadPoolExecutor(1) as pool:
        waiting: Future[list[tuple[Frame, LabelMap]]] | None = None
        for start in (*starts, None):
            ready = waiting.result() if waiting is not None else None
            waiting = None if start is None else pool.submit(_load, dataset, indices[start : start + size])
            if ready is not None:
                yield [frame for frame, _ in ready], [label for _, label in ready]


def _load(dataset: Dataset, indices: range) -> list[tuple[Frame, LabelMap]]:
    return [dataset.load(index) for index in indices]


def _note(names: tuple[str, ...], classes: tuple[str, ...], matrix: Matrix) -> str:
    """What a reader must know before comparing the scores."""
    notes = []
    if names != classes:
        first = next(index for index, (one, other) in enumerate(zip(names, classes, strict=True)) if one != other)
        notes.append(f"The model calls class {first} {classes[first]!r}, the dataset {names[first]!r}: ids were compared, not names.")
    present = np.flatnonzero(matrix.sum(1))
    if len(present) == 1 < len(names):
        notes.append(f"The labels hold no other class than {names[int(present[0])]}: the mean says little.")
    return " ".join(notes)
