"""A dataset's folder on disk -> pairs of frame and label map, for CamVid, Cityscapes, ADE20K, COCO-Stuff and anybody's own.

A dataset file (models/datasets/*.toml, or the path of one's own) says where the files lie and what the label pixels mean:

    classes, palette, ignore_index     as `recipe.load_labels` reads them
    [layout]
    images = "images/{split}/{name}.jpg"    one pair a name; a name may hold folders ("bochum/bochum_000000_000313")
    labels = "labels/{split}/{name}.png"
    list = "{split}.txt"                    instead of the two: a file of lines "IMAGE LABEL", relative to the root
    [layout.splits]                         what stands for {split}, if it is not the split's own name
    train = "training"
    [label_map]                             pixel value = class id; every other value is ignored. Without it: values are class ids
    7 = 0
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from .content import content_dir
from .errors import DatasetError, RecipeError
from .files import RECORD_BYTES, read_text
from .formats.recipe import Labels, load_labels
from .types import Frame, LabelMap


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled frame: its name and its two files."""

    name: str
    image: Path
    label: Path


@dataclass(frozen=True, slots=True)
class Dataset:
    """The samples of one split, in the order of their names, and what their label pixels mean.

    `lookup` maps a pixel value (0 to 255) to a class id, to `labels.ignore_index`, or to -1: a value that should not be there.
    """

    name: str
    split: str
    labels: Labels
    samples: tuple[Sample, ...]
    lookup: NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.samples)

    def load(self, index: int) -> tuple[Frame, LabelMap]:
        """The frame (H, W, 3) and its label map (H, W), of one size. Raises DatasetError, naming the pair."""
        sample = self.samples[index]
        frame, label = read_frame(sample), self.read_label(sample)
        if frame.shape[:2] != label.shape:
            raise DatasetError(
                f"{sample.image} is {frame.shape[1]}x{frame.shape[0]}, but its label {sample.label} is {label.shape[1]}x{label.shape[0]}.",
                "A label map has one pixel for each pixel of its image.",
            )
        return frame, label

    def read_label(self, sample: Sample) -> LabelMap:
        """A label map (H, W) of class ids and the ignore index. Raises DatasetError."""
        values = _read(sample.label, "a label map")
        if values.ndim != 2 or values.dtype != np.uint8:
            raise DatasetError(f"{sample.label} is no label map: it is {_describe(values)}, not one channel of 8 bits.")
        ids = self.lookup[values]
        if ids.min(initial=0) < 0:
            odd = sorted({int(value) for value in np.unique(values) if self.lookup[value] < 0})
            raise DatasetError(
                f"{sample.label} holds {_some(odd)}, which is neither one of the {len(self.labels.names)} classes nor"
                f" the ignored id {self.labels.ignore_index}.",
                "Is it another dataset's label, or does the dataset file need a [label_map]?",
            )
        return ids.astype(np.uint8)

    def subset(self, names: set[str], split: str) -> Dataset:
        """The samples with these names, as a split of its own."""
        return replace(self, split=split, samples=tuple(sample for sample in self.samples if sample.name in names))


def open_dataset(dataset: str, root: Path, split: str) -> Dataset:
    """A dataset's name or TOML file, its root folder and a split -> the split's samples.

    Raises DatasetError if the folder does not fit (naming what was looked for and what is there) or a pair lacks a half,
    and RecipeError if the dataset file contradicts itself.
    """
    path, data = _dataset_file(dataset)
    labels = load_labels(str(path))
    layout, root = _layout(data, path), Path(root)
    if not root.is_dir():
        raise DatasetError(f"The dataset folder {root} does not exist.", f"{data.get('name', dataset)} {_expected(layout)}")
    folder = layout.get("splits", {}).get(split, split)
    samples = _listed(root, layout, folder) if "list" in layout else _matched(root, layout, folder)
    if not samples:
        raise DatasetError(
            f"{root} holds no {split!r} split of {data.get('name', dataset)}: {_looked_for(layout, folder)} and {_found(root)}.",
            f"{data.get('name', dataset)} {_expected(layout)}",
        )
    return Dataset(str(data.get("name", path.stem)), split, labels, tuple(samples), _lookup(data, labels, path))


def _dataset_file(dataset: str) -> tuple[Path, dict[str, Any]]:
    path = Path(dataset) if dataset.endswith(".toml") else content_dir("models") / "datasets" / f"{dataset}.toml"
    if not path.is_file():
        load_labels(dataset)  # says which there are
    try:
        return path, tomllib.loads(read_text(path, RecipeError, "a dataset file"))
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"Cannot read {path}: {error}.") from error


def _layout(data: Mapping[str, Any], path: Path) -> dict[str, Any]:
    layout = data.get("layout")
    if not isinstance(layout, dict):
        raise RecipeError(f"{path} has no [layout], so its files cannot be found.", "See the dataset files that come with the project.")
    if "list" not in layout:
        for key in ("images", "labels"):
            if str(layout.get(key, "")).count("{name}") != 1:
                raise RecipeError(f"{path}: [layout] {key} is a path with one {{name}} in it, or there is a list.")
    return layout


def _matched(root: Path, layout: Mapping[str, Any], folder: str) -> list[Sample]:
    """The pairs whose files fit both patterns; raises DatasetError if a half is missing."""
    images = _named(root, layout["images"], folder)
    labels = _named(root, layout["labels"], folder)
    if not images or not labels:
        return []
    alone = sorted(images.keys() ^ labels.keys())
    if alone:
        half = "label" if alone[0] in images else "image"
        there = images.get(alone[0]) or labels[alone[0]]
        raise DatasetError(
            f"{root}: {len(alone)} of {len(images.keys() | labels.keys())} frames lack a half: {there} has no {half} ({_some(alone)})."
        )
    return [Sample(name, images[name], labels[name]) for name in sorted(images)]


def _named(root: Path, pattern: str, folder: str) -> dict[str, Path]:
    before, after = pattern.replace("{split}", folder).split("{name}")
    base = root / before
    return {path.relative_to(base).as_posix().removesuffix(after): path for path in base.rglob(f"*{after}") if path.is_file()}


def _listed(root: Path, layout: Mapping[str, Any], folder: str) -> list[Sample]:
    path = root / str(layout["list"]).replace("{split}", folder)
    if not path.is_file():
        return []
    samples = []
    for number, line in enumerate(read_text(path, DatasetError, "a list of frames", RECORD_BYTES).splitlines(), 1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 2:
            raise DatasetError(f"{path}, line {number}: {line!r} is not an image and a label, parted by a space.")
        image, label = (root / field.lstrip("/") for field in fields)
        for half in (image, label):
            if not half.is_file():
                raise DatasetError(f"{path}, line {number}: there is no {half}.")
        samples.append(Sample(Path(fields[0]).stem, image, label))
    return samples


def _lookup(data: Mapping[str, Any], labels: Labels, path: Path) -> NDArray[np.int16]:
    """Pixel value -> class id, ignore index, or -1 if no label may hold the value."""
    lookup = np.full(256, -1, np.int16)
    mapping = data.get("label_map")
    if mapping is None:
        lookup[: len(labels.names)] = np.arange(len(labels.names))
    else:
        lookup[:] = labels.ignore_index
        for value, target in mapping.items():
            if not (value.isdigit() and int(value) <= 255 and isinstance(target, int) and 0 <= target < len(labels.names)):
                raise RecipeError(f"{path}: [label_map] {value} = {target} is not a pixel value and one of {len(labels.names)} class ids.")
            lookup[int(value)] = target
    if not 0 <= labels.ignore_index <= 255 or labels.ignore_index < len(labels.names):
        raise RecipeError(f"{path}: the ignore index {labels.ignore_index} is one of the classes, or does not fit into 8 bits.")
    if mapping is None:
        lookup[labels.ignore_index] = labels.ignore_index
    return lookup


def read_frame(sample: Sample) -> Frame:
    """A sample's image as RGB uint8 (H, W, 3). Raises DatasetError."""
    return _read(sample.image, "an image", "RGB")


def _read(path: Path, what: str, mode: str | None = None) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            return np.array(image.convert(mode) if mode else image)
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{path} cannot be read as {what}: {error}.") from error


def _describe(values: NDArray[Any]) -> str:
    channels = 1 if values.ndim == 2 else values.shape[2]
    return f"{channels} channel{'s' if channels > 1 else ''} of {values.dtype}"


def _some(items: list[Any]) -> str:
    return ", ".join(str(item) for item in items[:5]) + (f" and {len(items) - 5} more" if len(items) > 5 else "")


def _looked_for(layout: Mapping[str, Any], folder: str) -> str:
    names = [layout["list"]] if "list" in layout else [layout["images"], layout["labels"]]
    return "looked for " + " and ".join(str(name).replace("{split}", folder).replace("{name}", "*") for name in names)


def _expected(layout: Mapping[str, Any]) -> str:
    names = [layout["list"]] if "list" in layout else [layout["images"], layout["labels"]]
    return "lies on disk as " + " with ".join(str(name) for name in names) + "."


def _found(root: Path) -> str:
    return "found " + (_some(sorted(_entries(root))) or "an empty folder")


def _entries(root: Path) -> Iterator[str]:
    for entry in root.iterdir():
        yield entry.name
        if entry.is_dir():
            yield from (f"{entry.name}/{inner.name}" for inner in entry.iterdir() if inner.is_dir())
