"""A dataset's folder on disk -> pairs of frame and label map, for CamVid, Cityscapes, ADE20K, COCO-Stuff and your own.

A dataset file (models/datasets/*.toml, or the path of your own) says where the files lie and what the label pixels mean:

    classes, palette, ignore_index     as `recipe.load_labels` reads them
    [layout]
    images = "images/{split}/{name}.jpg"    one pair for each name; a name may hold folders ("bochum/bochum_000000_000313")
    labels = "labels/{split}/{name}.png"
    list = "{split}.txt"                    instead of images and labels: a file of lines "IMAGE<tab>LABEL", relative to the root
    [layout.splits]                         what replaces {split}, if it is not the split's own name
    train = "training"
    [label_map]                             pixel value = class id; every other value is ignored. Without it: values are class ids
    7 = 0
    label_pixels = "colours"                at the top: what a label's pixels are, "ids" or the palette's "colours"; else each file shows
    ignored_colour = [0, 0, 0]              at the top: the colour that is ignored if the pixels are colours
"""

from __future__ import annotations

import dataclasses
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .content import content_dir
from .errors import DatasetError, ImageError, RecipeError
from .files import IMAGE_BYTES, read_text, sha256, sha256_of
from .formats.pair_list import ListedPair, read_pairs
from .formats.path_pattern import PathPattern
from .formats.recipe import Labels, load_labels
from .image.folders import OURS, Contents, walk
from .image.labels import LabelMeaning, read_label
from .image.png import is_ours
from .image.reader import ImageReader
from .types import Frame, LabelMap


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled frame: its name and its two files."""

    name: str
    image: Path
    label: Path


@dataclass(frozen=True, slots=True)
class Dataset:
    """The samples of one split, in the order of their names, what their label pixels mean, and how their images are read."""

    name: str
    split: str
    samples: tuple[Sample, ...]
    meaning: LabelMeaning
    reader: ImageReader = field(default_factory=ImageReader, compare=False)

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def labels(self) -> Labels:
        """The classes, their colours and the ignored id."""
        return self.meaning.labels

    def load(self, index: int) -> tuple[Frame, LabelMap]:
        """The frame (H, W, 3) and its label map (H, W), of one size, both upright. Raises DatasetError, naming the pair."""
        sample = self.samples[index]
        frame, label = self.read_frame(sample), self.read_label(sample)
        if frame.shape[:2] != label.shape:
            raise DatasetError(
                f"{sample.image} is {frame.shape[1]}x{frame.shape[0]}, but its label {sample.label} is {label.shape[1]}x{label.shape[0]}.",
                "A label map has one pixel for each pixel of its upright image; resize labels to the nearest value, never in between.",
            )
        return frame, label

    def read_frame(self, sample: Sample) -> Frame:
        """A sample's image as an upright frame (H, W, 3), as every command reads it. Raises DatasetError."""
        try:
            return self.reader.load(sample.image)
        except ImageError as error:
            raise DatasetError(f"{sample.image} cannot be read as an image: {error.what}", error.hint) from error

    def read_label(self, sample: Sample) -> LabelMap:
        """A label map (H, W) of class ids and the ignored id. Raises DatasetError."""
        return read_label(sample.label, self.meaning)

    def content_hash(self) -> str:
        """The SHA-256 of what scores depend on: names and content of the frames' files, and what label pixels mean. Raises DatasetError."""
        files = [[sample.name, _file_hash(sample.image), _file_hash(sample.label)] for sample in self.samples]
        document = {"files": files, "meaning": dataclasses.asdict(self.meaning)}
        return sha256(json.dumps(document, default=np.ndarray.tolist).encode())

    def subset(self, names: set[str], split: str) -> Dataset:
        """The samples with these names, as a split of its own."""
        return replace(self, split=split, samples=tuple(sample for sample in self.samples if sample.name in names))


def open_dataset(dataset: str, root: Path, split: str, reader: ImageReader | None = None) -> Dataset:
    """A dataset's name or TOML file, its root folder and a split -> the split's samples; `reader` reads the images and gets the remarks.

    Raises DatasetError if the folder does not fit (the message says what was looked for and what is there) or a pair is incomplete,
    and RecipeError if the dataset file contradicts itself.
    """
    path, data = _dataset_file(dataset)
    labels, reader = load_labels(str(path)), reader or ImageReader()
    layout, root = _layout(data, path), Path(root)
    if not root.is_dir():
        raise DatasetError(f"The dataset folder {root} does not exist.", f"{data.get('name', dataset)} {_layout_text(layout)}")
    folder = layout.get("splits", {}).get(split, split)
    samples = _samples_of_list(root, layout, folder, reader) if "list" in layout else _samples_of_patterns(root, layout, folder, reader)
    if not samples:
        raise DatasetError(
            f"{root} holds no {split!r} split of {data.get('name', dataset)}: {_patterns_text(layout, folder)} and {_root_text(root)}.",
            f"{data.get('name', dataset)} {_layout_text(layout)}",
        )
    return Dataset(str(data.get("name", path.stem)), split, tuple(samples), _meaning(data, labels, path), reader)


def _file_hash(path: Path) -> str:
    return sha256_of(path, DatasetError, "an image or a label map", IMAGE_BYTES)


def _dataset_file(dataset: str) -> tuple[Path, dict[str, Any]]:
    path = Path(dataset) if dataset.endswith(".toml") else content_dir("models") / "datasets" / f"{dataset}.toml"
    if not path.is_file():
        load_labels(dataset)  # raises an error that lists the known datasets
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
        if layout["images"] == layout["labels"]:
            raise RecipeError(f"{path}: [layout] images and labels are the same path, {layout['images']}.")
    for text in (*(layout.get(key, "") for key in ("images", "labels", "list")), *layout.get("splits", {}).values()):
        if Path(str(text)).is_absolute() or ".." in Path(str(text)).parts:
            raise RecipeError(f"{path}: [layout] leads out of the dataset's folder: {text}.", "Paths there begin at --root.")
    return layout


def _samples_of_patterns(root: Path, layout: Mapping[str, Any], folder: str, reader: ImageReader) -> list[Sample]:
    """The pairs of files that fit the two patterns. Raises DatasetError if a file has no partner."""
    patterns = [PathPattern.parse(str(layout[key]).replace("{split}", folder)) for key in ("images", "labels")]
    contents = {pattern.folder: _contents_of(root / pattern.folder, reader) for pattern in patterns}
    images, labels = (_paths_by_name(root, pattern, contents[pattern.folder]) for pattern in patterns)
    narrower, wider = (labels, images) if patterns[1].length > patterns[0].length else (images, labels)
    taken = set(narrower.values())  # if a file fits both patterns, the longer one decides: x_mask.png beside x.png is a label
    for name in [name for name, path in wider.items() if path in taken]:
        del wider[name]
    ours = [name for name, path in images.items() if name not in labels and is_ours(path)]
    for name in ours:
        del images[name]
    if ours:
        reader.say(f"Left out of {root / patterns[0].folder}: {OURS} ({len(ours):,}).")
    if not images or not labels:
        return []
    unpaired = sorted(images.keys() ^ labels.keys())
    if unpaired:
        half = "label" if unpaired[0] in images else "image"
        path = images.get(unpaired[0]) or labels[unpaired[0]]
        raise DatasetError(
            f"{root}: {len(unpaired)} of {len(images.keys() | labels.keys())} frames lack a half: {path} has no {half} ({_some(unpaired)})."
        )
    return [Sample(name, images[name], labels[name]) for name in sorted(images)]


def _contents_of(folder: Path, reader: ImageReader) -> Contents:
    """The files in a folder of a dataset; none if there is no such folder. The reader reports what was left out."""
    if not folder.is_dir():
        return Contents(folder, ())
    contents = walk(folder)
    line = contents.line()
    if line is not None:
        reader.say_once(line, line)
    return contents


def _paths_by_name(root: Path, pattern: PathPattern, contents: Contents) -> dict[str, Path]:
    """The files of a folder that fit a pattern, by name. Raises DatasetError for two files with one name."""
    paths: dict[str, Path] = {}
    for file in contents.files:
        name, path = pattern.name_of(file), root / pattern.folder / file
        if name is None:
            continue
        if name in paths:
            raise DatasetError(f"{paths[name]} and {path} are the same frame: their names differ in the suffix's capitals only.")
        paths[name] = path
    return paths


def _samples_of_list(root: Path, layout: Mapping[str, Any], folder: str, reader: ImageReader) -> list[Sample]:
    path = root / str(layout["list"]).replace("{split}", folder)
    if not path.is_file():
        return []
    samples: dict[str, tuple[int, Sample]] = {}
    twice = []
    for pair in read_pairs(path):
        image, label = (_inside(root, name, path, pair) for name in (pair.image, pair.label))
        line, known = samples.setdefault(os.path.abspath(image), (pair.line, Sample(image.stem, image, label)))
        if line == pair.line:
            continue
        if known.label != label:
            raise DatasetError(f"{path}, lines {line} and {pair.line}: {pair.image} has two labels, {known.label} and {label}.")
        twice.append(f"{pair.image} (lines {line} and {pair.line})")
    if twice:
        reader.say(f"{path} names some pairs more than once, which are taken once: {_some(twice)}.")
    return [sample for _, sample in samples.values()]


def _inside(root: Path, name: str, path: Path, pair: ListedPair) -> Path:
    """A name in a list -> its file. An absolute path inside the root stays as it is; any other starts at the root. Raises DatasetError."""
    for text in (name, name.replace("\\", "/")):  # a list that was written on Windows
        listed = Path(text)
        absolute = listed.is_absolute() and listed.resolve().is_relative_to(root.resolve())
        file = listed if absolute else root / text.lstrip("/")
        if ".." in listed.parts and not file.resolve().is_relative_to(root.resolve()):
            raise DatasetError(f"{path}, line {pair.line}: {name} leads out of the dataset's folder {root}.")
        if file.is_file():
            return file
    raise DatasetError(f"{path}, line {pair.line}: there is no {file}.", "A list's paths begin at --root.")


def _meaning(data: Mapping[str, Any], labels: Labels, path: Path) -> LabelMeaning:
    """What the dataset file says about label pixels. Raises RecipeError."""
    pixels, colour = data.get("label_pixels"), data.get("ignored_colour")
    if pixels not in (None, "ids", "colours"):
        raise RecipeError(f'{path}: label_pixels is "ids" or "colours", not {pixels!r}.')
    if not (colour is None or (isinstance(colour, list) and len(colour) == 3 and all(each in range(256) for each in colour))):
        raise RecipeError(f"{path}: ignored_colour is three numbers from 0 to 255, not {colour!r}.")
    if pixels == "colours" and "label_map" in data:
        raise RecipeError(f'{path}: label_pixels = "colours" and [label_map] cannot be combined: colours are those of the palette.')
    ignored = None if colour is None else (colour[0], colour[1], colour[2])
    return LabelMeaning(labels, _lookup(data, labels, path), "label_map" in data, pixels, ignored)


def _lookup(data: Mapping[str, Any], labels: Labels, path: Path) -> NDArray[np.int16]:
    """Pixel value -> class id, ignore index, or -1 if the value must not occur in a label."""
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


def _some(items: list[Any]) -> str:
    return ", ".join(str(item) for item in items[:5]) + (f" and {len(items) - 5} more" if len(items) > 5 else "")


def _patterns_text(layout: Mapping[str, Any], folder: str) -> str:
    names = [layout["list"]] if "list" in layout else [layout["images"], layout["labels"]]
    return "looked for " + " and ".join(str(name).replace("{split}", folder).replace("{name}", "*") for name in names)


def _layout_text(layout: Mapping[str, Any]) -> str:
    names = [layout["list"]] if "list" in layout else [layout["images"], layout["labels"]]
    return "lies on disk as " + " with ".join(str(name) for name in names) + "."


def _root_text(root: Path) -> str:
    return "found " + (_some(sorted(_entries(root))) or "an empty folder")


def _entries(root: Path) -> Iterator[str]:
    for entry in root.iterdir():
        yield entry.name
        if entry.is_dir():
            yield from (f"{entry.name}/{inner.name}" for inner in entry.iterdir() if inner.is_dir())
