"""Reads every label of a split once, before long work: how often each class occurs, and whether there is anything to learn or to score."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..datasets import Dataset
from ..errors import DatasetError
from ..image.label_colours import Colour
from ..image.labels import values_in
from ..machine import usable_cores
from ..types import Progress, no_progress

_MOST_LABELS = 100  # that are read again for a message
_MOST_VALUES = 8  # that a message lists


@dataclass(frozen=True, slots=True)
class Census:
    """How many pixels of each class each label map holds: (samples, classes); and how many pixels are ignored in all."""

    counts: NDArray[np.int64]
    ignored: int = 0

    @property
    def shares(self) -> NDArray[np.float64]:
        """The share of each class among the scored pixels."""
        total = self.counts.sum(0).astype(np.float64)
        return np.asarray(total / max(1.0, float(total.sum())), np.float64)

    def missing(self, names: tuple[str, ...]) -> list[str]:
        """The classes that no pixel has."""
        return [name for name, count in zip(names, self.counts.sum(0), strict=True) if not count]


def take_census(dataset: Dataset, threads: int | None = None, progress: Progress = no_progress) -> Census:
    """Reads every label map of a split once, and each image's header, and counts the pixels of each class.

    `threads` None means one for each core. Raises DatasetError for the first pair that cannot be read or whose sizes differ.
    """
    classes = len(dataset.labels.names)
    rows: list[NDArray[np.int64]] = []  # (256,) each
    pool = ThreadPoolExecutor(threads or usable_cores(), thread_name_prefix="census")
    try:
        for row in pool.map(lambda index: np.bincount(dataset.check(index).ravel(), minlength=256), range(len(dataset))):
            rows.append(row)
            progress(f"read {dataset.split}", len(rows), len(dataset))
    finally:
        pool.shutdown(cancel_futures=True)
    counts = np.stack(rows)
    return Census(counts[:, :classes], int(counts[:, dataset.labels.ignore_index].sum()))


def check_census(dataset: Dataset, census: Census, purpose: str, *, one_class: bool = False) -> None:
    """Raises DatasetError if there is nothing to `purpose` ("learn", "score") in a split, because fewer than two classes occur in it.

    With `one_class` one is enough, if no pixel is ignored. The hint names the values that the labels hold, and what to write into the
    dataset file.
    """
    names = dataset.labels.names
    missing = census.missing(names)
    present = [name for name in names if name not in missing]
    if len(present) > 1 or (one_class and present and not census.ignored):
        return
    what = f"no pixel has one of the classes {_some(names)}" if not present else f"all pixels that are not ignored are {present[0]}"
    *details, hint = _advice(dataset)
    what = f"There is nothing to {purpose} in the {dataset.split!r} split of {dataset.name}: {what}."
    raise DatasetError(what, hint, details=details)


def _advice(dataset: Dataset) -> list[str]:
    """What the labels hold, and the remedy, line by line."""
    meaning, labels = dataset.meaning, dataset.labels
    values = sorted({value for sample in dataset.samples[:_MOST_LABELS] for value in values_in(sample.label, meaning)}, key=_order)
    numbers = [value for value in values if isinstance(value, int)]
    if len(numbers) < len(values):
        return [f"The labels hold the colours {_some(values)}; the palette has {_some(labels.palette)}."]
    if meaning.mapped:
        known = [value for value in range(256) if meaning.lookup[value] != labels.ignore_index]
        why = f"[label_map] has {_some(known)}, and every other value is ignored"
    elif labels.ignore_index in numbers:
        why = f"{labels.ignore_index} is the ignore_index"
    else:
        why = f"the classes are {_some(range(len(labels.names)))}"
    first, *more = _remedy(numbers, labels.names, mapped=meaning.mapped)
    return [f"The labels hold the values {_some(values)}; {why}. {first}", *more]


def _remedy(values: list[int], names: tuple[str, ...], *, mapped: bool) -> list[str]:
    """What to write, line by line; `mapped`: the dataset file has a [label_map] already."""
    if not 1 < len(values) <= len(names):
        return ["Say in the dataset file which value is which class: [label_map] has lines VALUE = CLASS."]
    where = "write in place of the dataset file's [label_map]" if mapped else "write into the dataset file"
    lines = [f"    {value} = {index}    # {name}" for index, (value, name) in enumerate(zip(values, names, strict=False))]
    return [f"If they are {' and '.join(names[: len(values)])}, {where}:", "    [label_map]", *lines]


def _order(value: int | Colour) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else value


def _some(items: Iterable[object]) -> str:
    texts = [str(item) for item in items]
    return ", ".join(texts[:_MOST_VALUES]) + (f" and {len(texts) - _MOST_VALUES} more" if len(texts) > _MOST_VALUES else "")
