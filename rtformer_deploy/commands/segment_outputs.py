"""What the outputs of `segment` are called: one name for each input, in the folder that it belongs to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..stream.items import Source

LABELS, OVERLAY = "_labels.png", "_overlay.png"
VIDEO, MAPS = "_overlay.mp4", "_labels"


@dataclass(frozen=True, slots=True)
class Job:
    """An image and where its two outputs go; `overlay` None: there is only the label map."""

    image: Path
    labels: Path
    overlay: Path | None

    @property
    def name(self) -> str:
        """What the outputs are called, but for their ends."""
        return self.labels.name.removesuffix(LABELS)

    def beside(self, end: str) -> Path:
        """The path of another output, which is called as the label map but for its end."""
        return self.labels.with_name(self.name + end)


@dataclass(frozen=True, slots=True)
class Clip:
    """A video or a live source, and where its outputs go; None: there is no overlay, or there are no label maps.

    `place` is the path of every output but for its end.
    """

    source: Source
    place: Path
    overlay: Path | None
    labels: Path | None

    def beside(self, end: str) -> Path:
        """The path of an output of this end."""
        return self.place.with_name(self.place.name + end)


def names_by_folder(places: Sequence[Path], folders: Sequence[Path], taken: Sequence[tuple[Path, str]] = ()) -> list[str]:
    """A name for each output, different from the others in its folder and from those `taken` there (folder, name).

    Folders whose names differ in upper and lower case alone count as one: on some file systems they are.
    """
    keys = [str(folder).casefold() for folder in folders]
    names = [""] * len(places)
    for key in dict.fromkeys(keys):
        here = [index for index, each in enumerate(keys) if each == key]
        used = [name for folder, name in taken if str(folder).casefold() == key]
        for index, name in zip(here, output_names([places[index] for index in here], used), strict=True):
            names[index] = name
    return names


def frame_names(folders: Sequence[Path], images: Sequence[Path], names: Sequence[str]) -> list[str]:
    """What answers call images: their file names, behind their sub-folders; images of one name are called as their outputs, `names`."""
    frames = [(folder / image.name).as_posix() for folder, image in zip(folders, images, strict=True)]
    count = Counter(frames)
    return [
        frame if count[frame] == 1 else (folder / f"{name}{image.suffix}").as_posix()
        for frame, folder, image, name in zip(frames, folders, images, names, strict=True)
    ]


def output_names(images: Sequence[Path], taken: Collection[str] = ()) -> list[str]:
    """A unique name for each image, also on file systems that ignore case; none of those in `taken`."""
    forms: tuple[Callable[[Path], str], ...] = (
        lambda image: image.stem,
        lambda image: f"{image.stem}_{image.suffix[1:]}",
        lambda image: f"{image.absolute().parent.name}_{image.stem}",
        lambda image: f"{image.absolute().parent.name}_{image.stem}_{image.suffix[1:]}",
    )
    names: dict[int, str] = {}
    for form in forms:
        count = Counter(form(image).casefold() for image in images)
        names_in_use = _folded([*names.values(), *taken])
        for index, image in enumerate(images):
            name = form(image)
            if index not in names and count[name.casefold()] == 1 and name.casefold() not in names_in_use:
                names[index] = name
                names_in_use.add(name.casefold())
    names_in_use = _folded([*names.values(), *taken])
    for index, image in enumerate(images):
        if index not in names:
            names[index] = _numbered(forms[-1](image), names_in_use)
    return [names[index] for index in range(len(images))]


def _folded(names: Collection[str]) -> set[str]:
    return {name.casefold() for name in names}


def _numbered(name: str, names_in_use: set[str]) -> str:
    number = 1
    while f"{name}_{number}".casefold() in names_in_use:
        number += 1
    names_in_use.add(f"{name}_{number}".casefold())
    return f"{name}_{number}"
