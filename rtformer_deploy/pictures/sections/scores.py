"""Reports of `evaluate`: mIoU in one table, IoU by class, confusion matrices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from markupsafe import Markup
from msgspec import Meta

from ...formats.documents import DocumentError
from ...types import Classes, Count, Share
from ..blocks import Block, Cell, Document, Heading, Lines, Part, Picture, Table, count, detailed, part, percent, short
from ..confusion import draw_confusion
from ..svg import cropped

Pixels = Annotated[int, Meta(ge=0, le=2**53)]
_MOST_BESIDE = 6  # reports in one table of classes


@dataclass(frozen=True, slots=True)
class Scores:
    """A report of `evaluate`. A row of `confusion` is what the labels say, a column what was predicted."""

    model: str
    dataset: str
    split: str
    frames: Count
    miou: Share | None
    pixel_accuracy: Share | None
    iou: Mapping[str, Share | None]
    classes: Classes
    confusion: Annotated[tuple[tuple[Pixels, ...], ...], Meta(max_length=255)]
    note: str | None = None


def check(data: Scores) -> None:
    """Raises DocumentError if the matrix does not have a row and a column for each class."""
    expected = len(data.classes)
    if len(data.confusion) != expected or any(len(row) != expected for row in data.confusion):
        raise DocumentError(f"confusion is not a matrix of {expected} classes")


def section(documents: Sequence[Document[Scores]]) -> Part:
    """Reports -> a table of all of them, the classes of those that tell the same ones apart beside each other, and the matrices."""
    return part("Accuracy", documents, _confusion, _overview(documents), *_by_class(detailed(documents)))


def _overview(documents: Sequence[Document[Scores]]) -> Table:
    rows = [_row(document.name, document.data) for document in documents]
    return Table("Mean IoU", ("file", "model", "dataset", "split", "frames", "mIoU, %", "pixel accuracy, %"), rows)


def _row(name: str, data: Scores) -> list[Cell]:
    told = [short(text) for text in (data.model, data.dataset, data.split)]
    return [name, *told, count(data.frames), percent(data.miou), percent(data.pixel_accuracy)]


def _by_class(documents: Sequence[Document[Scores]]) -> Iterator[Block]:
    groups: dict[tuple[str, ...], list[Document[Scores]]] = {}
    for document in documents:
        groups.setdefault(document.data.classes, []).append(document)
    for classes, group in groups.items():
        for start in range(0, len(group), _MOST_BESIDE):
            beside = group[start : start + _MOST_BESIDE]
            rows: list[list[Cell]] = [[name, *(percent(each.data.iou.get(name)) for each in beside)] for name in classes]
            yield Table("IoU by class, %", ("class", *(each.name for each in beside)), rows)


def _confusion(document: Document[Scores]) -> Iterator[Block]:
    data = document.data
    title = f"{short(data.model)} on {short(data.dataset)} {short(data.split)}"
    yield Heading(document.name)
    words = "Percent of each true class (row) that was taken for the class of the column."
    yield Picture(Markup(draw_confusion(np.array(data.confusion, np.int64), data.classes, title, cropped)), words)
    if data.note:
        yield Lines([short(data.note)])
