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
    frame_rate = 30                         at the top: the numbers that names end in count the frames of a video, so many a second

A split "train:1/4" is the first of the four stretches of every drive in `train`, "train:night:1/4" of the drives named so, see
`formats.folds`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import DatasetError, ImageError, RecipeError, about
from .files import IMAGE_BYTES, sha256, sha256_of
from .formats.dataset_file import DatasetFile, Labels, Layout, dataset_path, read_dataset_file
from .formats.documents import DocumentError
from .formats.folds import GAP_SECONDS, Fold, near, parse_split, stretch
from .formats.names import clean_name
from .formats.pair_list import ListedPair, read_pairs
from .formats.path_pattern import PathPattern
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
    frame_rate: float | None = None

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
        _check_sizes(sample, frame.shape[:2], label.shape)
        return frame, label

    def check(self, index: int) -> LabelMap:
        """The label map of a pair (H, W), once its image is known to be there in the same size; the image's header alone is read.

        Raises DatasetError, naming the pair.
        """
        sample = self.samples[index]
        with _of_image(sample):
            size = self.reader.size(sample.image)
        label = self.read_label(sample)
        _check_sizes(sample, size, label.shape)
        return label

    def read_frame(self, sample: Sample) -> Frame:
        """A sample's image as an upright frame (H, W, 3), as every command reads it. Raises DatasetError."""
        with _of_image(sample):
            return self.reader.load(sample.image)

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

    @property
    def names(self) -> set[str]:
        """The names of the samples."""
        return {sample.name for sample in self.samples}

    def stretch(self, fold: Fold) -> Dataset:
        """The fold's stretch of every drive that it means, as a split of its own. Raises DatasetError."""
        return self.subset(stretch(self.names, fold), f"{self.split}:{fold}")

    def apart_from(self, held_out: Dataset) -> Dataset:
        """The samples that are at least `GAP_SECONDS` from every held-out one of their drive. Raises DatasetError, also if none is left."""
        if self.frame_rate is None:
            raise DatasetError(
                f"{self.name} does not say how many frames a second has, so no frame can be kept apart from the held-out ones.",
                "If its names end in frame numbers, write frame_rate = 30, or what it is, at the top of the dataset file.",
            )
        apart = self.subset(self.names - near(self.names, held_out.names, GAP_SECONDS * self.frame_rate), self.split)
        if not apart.samples:
            raise DatasetError(f"Every frame of {self.split!r} is within {GAP_SECONDS:g} seconds of {held_out.split!r}.")
        return apart


@contextlib.contextmanager
def _of_image(sample: Sample) -> Iterator[None]:
    """Turns an ImageError into the dataset's own error."""
    try:
        yield
    except ImageError as error:
        raise DatasetError(about(sample.image, "cannot be read as an image", error), error.hint) from error


def _check_sizes(sample: Sample, frame: tuple[int, ...], label: tuple[int, ...]) -> None:
    if frame != label:
        raise DatasetError(
            f"{sample.image} is {frame[1]}x{frame[0]}, but its label {sample.label} is {label[1]}x{label[0]}.",
            "A label map has one pixel for each pixel of its upright image; resize labels to the nearest value, never in between.",
        )


def open_dataset(dataset: str, root: Path, split: str, reader: ImageReader | None = None) -> Dataset:
    """A dataset's name or TOML file, its root folder and a split -> the split's samples; `reader` reads the images and gets the remarks.

    "train:1/4" is a stretch of a split, see `formats.folds`.

    Raises DatasetError if the folder does not fit (the message says what was looked for and what is there) or a pair is incomplete,
    and RecipeError if the dataset file contradicts itself.
    """
    path = dataset_path(dataset)
    file = read_dataset_file(path)
    layout, name = file.layout, file.name or clean_name(path.stem)
    root, reader = Path(root), reader or ImageReader()
    split, fold = parse_split(split)
    if layout is None:
        raise RecipeError(f"{path} has no [layout], so its files cannot be found.", "See the dataset files that come with the project.")
    if not os.path.isdir(root):
        raise DatasetError(f"The dataset folder {root} does not exist.", f"{name} {_layout_text(layout)}")
    paths = _paths(layout, split, path)
    samples = _samples_of_list(root, paths[0], reader) if layout.list else _samples_of_patterns(root, paths, reader)
    if not samples:
        raise DatasetError(
            f"{root} holds no {split!r} split of {name}: {_patterns_text(paths)} and {_root_text(root)}.", f"{name} {_layout_text(layout)}"
        )
    whole = Dataset(name, split, tuple(samples), _meaning(file), reader, file.frame_rate)
    return whole if fold is None else whole.stretch(fold)


def _file_hash(path: Path) -> str:
    return sha256_of(path, DatasetError, "an image or a label map", IMAGE_BYTES)


def _paths(layout: Layout, split: str, path: Path) -> list[str]:
    """The layout's list, or its two patterns, for a split. Raises RecipeError if the split's name leads out of the dataset's folder."""
    try:
        return [layout.fill(text, split) for text in _texts(layout)]
    except DocumentError as error:
        raise RecipeError(f"{path}: {error}.") from error


def _texts(layout: Layout) -> list[str]:
    return [layout.list] if layout.list else [layout.images, layout.labels]


def _samples_of_patterns(root: Path, paths: Sequence[str], reader: ImageReader) -> list[Sample]:
    """The pairs of files that fit the two patterns. Raises DatasetError if a file has no partner."""
    patterns = [PathPattern.parse(path) for path in paths]
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
    if not os.path.isdir(folder):
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


def _samples_of_list(root: Path, name: str, reader: ImageReader) -> list[Sample]:
    path = root / name
    if not os.path.isfile(path):
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
        absolute = listed.is_absolute() and Path(os.path.realpath(listed)).is_relative_to(os.path.realpath(root))
        file = listed if absolute else root / text.lstrip("/")
        if ".." in listed.parts and not Path(os.path.realpath(file)).is_relative_to(os.path.realpath(root)):
            raise DatasetError(f"{path}, line {pair.line}: {name} leads out of the dataset's folder {root}.")
        if os.path.isfile(file):
            return file
    raise DatasetError(f"{path}, line {pair.line}: there is no {file}.", "A list's paths begin at --root.")


def _meaning(file: DatasetFile) -> LabelMeaning:
    """What the dataset file says about label pixels."""
    return LabelMeaning(file.labels, _lookup(file), file.label_map is not None, file.label_pixels, file.ignored_colour)


def _lookup(file: DatasetFile) -> NDArray[np.int16]:
    """Pixel value -> class id, ignore index, or -1 if the value must not occur in a label."""
    if file.label_map is None:
        lookup = np.full(256, -1, np.int16)
        lookup[: len(file.classes)] = np.arange(len(file.classes))
        lookup[file.ignore_index] = file.ignore_index
        return lookup
    lookup = np.full(256, file.ignore_index, np.int16)
    for value, target in file.label_map.items():
        lookup[int(value)] = target
    return lookup


def _some(items: list[Any]) -> str:
    return ", ".join(str(item) for item in items[:5]) + (f" and {len(items) - 5} more" if len(items) > 5 else "")


def _patterns_text(paths: Sequence[str]) -> str:
    return "looked for " + " and ".join(path.replace("{name}", "*") for path in paths)


def _layout_text(layout: Layout) -> str:
    return "lies on disk as " + " with ".join(_texts(layout)) + "."


def _root_text(root: Path) -> str:
    return "found " + (_some(sorted(_entries(root))) or "an empty folder")


def _entries(root: Path) -> Iterator[str]:
    for entry in root.iterdir():
        yield entry.name
        if entry.is_dir():
            yield from (f"{entry.name}/{inner.name}" for inner in entry.iterdir() if inner.is_dir())
