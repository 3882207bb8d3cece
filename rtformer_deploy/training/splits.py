"""A dataset -> what a run is trained on, and what it is scored on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ..datasets import Dataset, open_dataset
from ..errors import DatasetError
from ..formats.folds import Fold
from ..image.reader import ImageReader


def open_splits(
    dataset: str,
    root: Path,
    *,
    hold_out: str | None = None,
    fold: str | None = None,
    also: Sequence[str] = (),
    reader: ImageReader | None = None,
) -> tuple[Dataset, list[Dataset]]:
    """A dataset -> what is trained on, and the checks.

    Trained on are `train` and the splits of `also`; checked is val, unless it is trained on. With a `fold` its stretch of every drive of
    train (or of the fold's drives) is the only check, and no frame near it is trained on. `hold_out` makes the last third of the frames of
    train whose names begin so a second check. Raises DatasetError.
    """
    train = open_dataset(dataset, root, "train", reader)
    checks = [] if fold is not None or "val" in also else [open_dataset(dataset, root, "val", reader)]
    fit = _joined([train, *(open_dataset(dataset, root, split, reader) for split in also)])
    if fold is not None:
        checks.append(train.stretch(Fold.parse(fold)))
        fit = fit.apart_from(checks[-1])
    if hold_out is not None:
        checks.append(train.subset(_last_third(train, hold_out), "held-out"))
        fit = fit.subset(fit.names - checks[-1].names, fit.split)
    _refuse_shared(fit, checks)
    return fit, checks


def _refuse_shared(fit: Dataset, checks: Sequence[Dataset]) -> None:
    """Raises DatasetError if an image is trained on and scored too: the score would flatter."""
    trained = {sample.image for sample in fit.samples}
    for check in checks:
        both = sorted(sample.name for sample in check.samples if sample.image in trained)
        if both:
            what = f"{len(both)} frames of {check.split!r} would be trained on and scored too, such as {both[0]}."
            raise DatasetError(what, "Train on other splits with --also, or on all of val.")


def _joined(splits: Sequence[Dataset]) -> Dataset:
    """Several splits as one. Raises DatasetError if a name is in two of them."""
    names = set[str]()
    for split in splits:
        twice = sorted(names & split.names)
        if twice:
            raise DatasetError(f"The frame {twice[0]} of {split.split!r} is in another split too, so they cannot be trained on together.")
        names |= split.names
    samples = tuple(sample for split in splits for sample in split.samples)
    return dataclasses.replace(splits[0], split="+".join(split.split for split in splits), samples=samples)


def _last_third(train: Dataset, prefix: str) -> set[str]:
    """The names of the last third of the frames that begin with a prefix. Raises DatasetError if there are none."""
    names = [sample.name for sample in train.samples if sample.name.startswith(prefix)]
    chosen = set(names[len(names) - round(len(names) / 3) :]) if names else set()
    if not chosen:
        raise DatasetError(f"Fewer than two training frames have names that begin with {prefix!r}; nothing can be held out.")
    return chosen
