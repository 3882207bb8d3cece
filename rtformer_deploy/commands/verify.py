"""What `verify` does with files: it compares two models on images or a labelled dataset and writes the result as JSON and as a picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..datasets import Dataset, open_dataset
from ..errors import DatasetError, ImageError, UsageError
from ..evaluation.verify import Item, Verification, verify
from ..files import json_bytes, printable, write_atomic
from ..formats.external_model import ExternalModel
from ..formats.model_file import is_model, load_stamped
from ..formats.safetensors_file import is_weights
from ..image.frames import images_in, save_png
from ..image.odd_files import OddFiles
from ..image.reader import ImageReader
from ..opening import open_any
from ..pictures.changes import draw_changes
from ..types import Progress, no_progress
from .kinds import COMPARISON, PICTURE
from .outputs import check_outputs, file_inputs, model_inputs, outputs


@dataclass(frozen=True, slots=True)
class VerifyRequest:
    """Which two models, what to compare them on, the bounds, and where the result (JSON) and the worst image (PNG) go, if anywhere.

    `reader` reads the images, the dataset's too. `max_flips` is a share of the pixels from 0 to 1, `max_drop` in points of mIoU,
    `margin` in units of the logits.
    """

    a: Path
    b: Path
    images: tuple[Path, ...] = ()
    dataset: str | None = None
    root: Path | None = None
    split: str = "val"
    reader: ImageReader = field(default_factory=ImageReader)
    max_flips: float | None = None
    max_drop: float | None = None
    margin: float | None = None
    json_path: Path | None = None
    picture_path: Path | None = None
    threads: int | None = None
    device: int = 0
    external: ExternalModel = field(default_factory=ExternalModel)


def verify_files(request: VerifyRequest, progress: Progress = no_progress, odd: OddFiles | None = None) -> Verification:
    """Compares two plans, ONNX models or networks' weights and writes the files that were asked for; the caller checks the bounds.

    `odd` gets the images that cannot be read; without it the first one is an error. Raises UsageError and OutputError before the
    work, and what opening the models, the dataset and `verify` raise.
    """
    _check(request)
    items, ignore, dataset = image_items(request.images, request.reader), 255, None
    if request.dataset is not None and request.root is not None:
        dataset = open_dataset(request.dataset, request.root, request.split, request.reader)
        ignore = dataset.labels.ignore_index
    external_a, external_b = (external_for(path, request.external) for path in (request.a, request.b))
    if request.external.is_set() and not (external_a.is_set() or external_b.is_set()):
        raise UsageError(
            "A and B both say themselves what they are.", "Leave --classes, --mean, --std, --input, --output-name and --threshold out."
        )
    with (
        open_any(request.a, external=external_a, device=request.device, threads=request.threads) as a,
        open_any(request.b, external=external_b, device=request.device, threads=request.threads) as b,
    ):
        if dataset is not None:
            items += dataset_items(dataset, len(a.spec.classes))
        names = str(request.a), str(request.b)
        verification = verify(a, b, items, names=names, margin=request.margin, ignore=ignore, odd=odd, progress=progress)
    if request.json_path is not None:
        write_atomic(request.json_path, json_bytes(verification.to_json()))
    if request.picture_path is not None and verification.worst_changes is not None:
        changes = verification.worst_changes
        save_png(request.picture_path, draw_changes(changes.frame, changes.changed, changes.near))
    return verification


def image_items(paths: Sequence[Path], reader: ImageReader | None = None) -> list[Item]:
    """Files, and folders of images (with their sub-folders, sorted) -> items that `reader` reads.

    Raises ImageError for what is missing and for a folder without any.
    """
    reader = reader or ImageReader()
    return [_item(image, reader) for path in paths for image in _images(path, reader)]


def dataset_items(dataset: Dataset, classes: int) -> list[Item]:
    """A labelled split -> items with labels. Raises DatasetError if the models have another number of `classes`."""
    if len(dataset.labels.names) != classes:
        raise DatasetError(f"A tells {classes} classes apart and {dataset.name} has {len(dataset.labels.names)}: no IoU can be counted.")
    return [_labelled(dataset, index) for index in range(len(dataset))]


def external_for(path: Path, external: ExternalModel) -> ExternalModel:
    """What the user says about models from elsewhere, for this file: nothing if the file carries its own metadata."""
    elsewhere = external.is_set() and not is_weights(path) and is_model(path) and load_stamped(path) is None
    return external if elsewhere else ExternalModel()


def _check(request: VerifyRequest) -> None:
    """Raises UsageError for options that do not fit together, OutputError for a file that cannot be written."""
    if (request.dataset is None) != (request.root is None):
        raise UsageError("--dataset and --root belong together.")
    if request.max_drop is not None and request.dataset is None:
        raise UsageError("--max-drop needs labels.", "Give --dataset and --root.")
    if not request.images and request.dataset is None:
        raise UsageError("There is nothing to compare on.", "Name images or folders, or a dataset with --dataset and --root.")
    inputs = [*model_inputs(request.a, request.b), *file_inputs(*request.images, request.dataset, request.external.classes)]
    check_outputs(outputs((request.json_path, COMPARISON), (request.picture_path, PICTURE)), inputs)


def _item(path: Path, reader: ImageReader) -> Item:
    return Item(printable(path), lambda: reader.load(path))


def _labelled(dataset: Dataset, index: int) -> Item:
    sample = dataset.samples[index]
    return Item(printable(sample.image), lambda: dataset.read_frame(sample), lambda: dataset.load(index)[1])


def _images(path: Path, reader: ImageReader) -> list[Path]:
    if not os.path.isdir(path):
        if not os.path.exists(path):
            raise ImageError(f"There is no image {path}.")
        return [path]
    return images_in(path, reader.say)
