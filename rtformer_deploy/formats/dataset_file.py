"""Reads dataset files: the classes of a dataset, and where its files lie. `datasets` says what each key means."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Annotated, Literal

from msgspec import Meta

from ..content import content_dir
from ..errors import RecipeError, shorten
from ..types import PIXEL_VALUE, Byte, Classes, FileName, Palette, PathText, Text
from .conversion import convert_strict
from .documents import DocumentError, read_toml
from .names import is_name


@dataclass(frozen=True, slots=True)
class Labels:
    """Class names, one RGB triple for each class, and the id that is not scored."""

    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    ignore_index: int


@dataclass(frozen=True, slots=True)
class Layout:
    """A [layout]: two paths with one {name} in each, or a list; {split} stands for the split, or for what `splits` says of it."""

    images: PathText = ""
    labels: PathText = ""
    list: PathText = ""
    splits: Mapping[Text, PathText] = field(default_factory=dict)

    def fill(self, text: str, split: str) -> str:
        """A path of this layout for a split. Raises DocumentError if it leads out of the dataset's folder."""
        path = text.replace("{split}", self.splits.get(split, split))
        plain = PureWindowsPath(path)  # on any system: both kinds of slashes, and drives
        if plain.drive or plain.root or ".." in plain.parts:
            raise DocumentError(f"[layout] leads out of the dataset's folder: {shorten(path)}; paths there begin at --root")
        return path

    def check(self) -> None:
        """Raises DocumentError if the paths contradict each other or lead out of the dataset's folder."""
        if not self.list:
            for key, text in (("images", self.images), ("labels", self.labels)):
                if text.count("{name}") != 1:
                    raise DocumentError(f"[layout] {key} is a path with one {{name}} in it, or there is a list")
            if self.images == self.labels:
                raise DocumentError(f"[layout] images and labels are the same path, {shorten(self.images)}")
        for split in ("{split}", *self.splits):
            for text in (self.images, self.labels, self.list):
                self.fill(text, split)


@dataclass(frozen=True, slots=True)
class DatasetFile:
    """What a dataset file says. `label_map` maps pixel values, as text, to class ids.

    `frame_rate`: the numbers that names end in count the frames of a video, so many a second.
    """

    classes: Classes
    palette: Palette
    ignore_index: Byte
    name: FileName | None = None
    layout: Layout | None = None
    label_map: Mapping[Annotated[str, Meta(pattern=PIXEL_VALUE)], Byte] | None = None
    label_pixels: Literal["ids", "colours"] | None = None
    ignored_colour: tuple[Byte, Byte, Byte] | None = None
    frame_rate: Annotated[float, Meta(gt=0, le=10_000)] | None = None

    @property
    def labels(self) -> Labels:
        return Labels(self.classes, self.palette, self.ignore_index)

    def check(self) -> None:
        """Raises DocumentError if parts of the file contradict each other."""
        count = len(self.classes)
        if len(self.palette) != count:
            raise DocumentError(f"it names {count} classes and {len(self.palette)} colours")
        if self.ignore_index < count:
            raise DocumentError(f"ignore_index is {self.ignore_index}, which is one of the {count} classes")
        for value, target in (self.label_map or {}).items():
            if target >= count:
                raise DocumentError(f"[label_map] {value} = {target} is not a pixel value and one of {count} class ids")
        if self.label_pixels == "colours" and self.label_map is not None:
            raise DocumentError('label_pixels = "colours" and [label_map] cannot be combined: colours are those of the palette')
        if self.layout is not None:
            self.layout.check()


def dataset_path(dataset: str, beside: Path | None = None) -> Path:
    """A dataset that comes with the project, or the path of a dataset TOML file, -> the path of its file.

    A relative path starts at the folder `beside`. Raises RecipeError if there is no such file.
    """
    folder = content_dir("models") / "datasets"
    if dataset.endswith(".toml"):
        path = (beside or Path()) / dataset
    else:
        path = folder / f"{dataset if is_name(dataset) else ''}.toml"
    if not os.path.isfile(path):
        known = ", ".join(sorted(entry.stem for entry in folder.glob("*.toml")))
        raise RecipeError(f"There is no dataset {shorten(dataset)!r}.", f"There are: {known}, or a path that ends in .toml.")
    return path


def read_dataset_file(path: Path) -> DatasetFile:
    """A dataset TOML file -> its content. Raises RecipeError, also for unknown keys."""
    data = read_toml(path, RecipeError, "a dataset file")
    try:
        content = convert_strict(data, DatasetFile)
        content.check()
    except DocumentError as error:
        raise RecipeError(f"{path}: {error}.") from error
    return content


def load_labels(dataset: str, beside: Path | None = None) -> Labels:
    """Class names, palette and ignore index of a dataset that comes with the project, or of a dataset TOML file.

    A relative path starts at the folder `beside`. Raises RecipeError.
    """
    return read_dataset_file(dataset_path(dataset, beside)).labels


def numbered_labels(count: int) -> Labels:
    """Labels for classes without names: class0, class1, ..., in evenly spread colours."""
    if not 1 <= count <= 255:
        raise RecipeError(f"{count} classes do not fit: a label map is uint8, 1 to 255 classes.")
    return Labels(tuple(f"class{index}" for index in range(count)), tuple(_spread(index) for index in range(count)), 255)


def _spread(index: int) -> tuple[int, int, int]:
    """The VOC colour map: the bits of the id go to red, green and blue in turn, highest first."""
    red = green = blue = 0
    value = index + 1
    for bit in range(7, -1, -1):
        red |= (value & 1) << bit
        green |= (value >> 1 & 1) << bit
        blue |= (value >> 2 & 1) << bit
        value >>= 3
    return red, green, blue
