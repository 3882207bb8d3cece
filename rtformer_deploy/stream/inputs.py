"""What a user names - images, folders, globs, lists, videos, cameras, addresses - sorted into kinds."""

from __future__ import annotations

import glob
import importlib.util
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UsageError
from ..files import read_text
from ..image.folders import walk
from .camera import camera_number
from .network import is_address, is_object, shown
from .video_file import SUFFIXES

LIST, STREAMS = ".txt", ".streams"
_DEEPEST = 3  # lists in lists


@dataclass(slots=True)
class Inputs:
    """Inputs by kind, each in the order given. `images` holds files and folders; `videos` files, each with the sub-folder it lies in.

    `cameras` are numbers; `addresses` are as written, with their passwords; `objects` are the addresses of objects and prefixes.
    """

    images: list[Path] = field(default_factory=list)
    videos: list[tuple[Path, Path]] = field(default_factory=list)
    cameras: list[int] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    objects: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.images or self.videos or self.cameras or self.addresses or self.objects)

    @property
    def streams(self) -> int:
        """How many live sources there may be."""
        return len(self.cameras) + len(self.addresses)


def readable_videos() -> frozenset[str]:
    """The suffixes of the videos that are read in folders: none if PyAV is not installed."""
    return SUFFIXES if importlib.util.find_spec("av") is not None else frozenset()


def sort_inputs(given: Sequence[str | Path | int]) -> Inputs:
    """Inputs as a user writes them -> by kind. A number is a camera.

    A folder is read with its sub-folders. A pattern (*.jpg) stands for what fits it, sorted. A .txt file lists images and videos, a
    .streams file addresses and cameras, one a line, paths beginning at the list's folder; empty lines and lines that begin with # are
    skipped. What is named twice is taken once. Raises UsageError, with the list's name, for what is none of these.
    """
    inputs = Inputs()
    for each in given:
        _sort(each, inputs, depth=0)
    inputs.videos = list({path.absolute(): (path, below) for path, below in reversed(inputs.videos)}.values())[::-1]
    inputs.cameras = list(dict.fromkeys(inputs.cameras))
    inputs.addresses = list(dict.fromkeys(inputs.addresses))
    inputs.objects = list(dict.fromkeys(inputs.objects))
    return inputs


def refuse_objects(inputs: Inputs) -> None:
    """Raises UsageError if there are objects: one machine's run reads files."""
    if inputs.objects:
        raise UsageError(f"{shown(inputs.objects[0])} lies in a store of objects, which a cluster reads.", "Add --cluster.")


def _sort(given: str | Path | int, inputs: Inputs, depth: int) -> None:
    text = str(given)
    if not text or "\0" in text:
        raise UsageError(f"{text!r} is not the name of a source.")
    path = Path(given) if not isinstance(given, int) else Path(text)
    number = given if isinstance(given, int) else camera_number(text) if text.startswith("/dev/") else None
    if number is not None:
        inputs.cameras.append(number)
    elif is_object(text):
        inputs.objects.append(text)
    elif is_address(text):
        inputs.addresses.append(text)
    elif os.path.isdir(path):
        _sort_folder(path, inputs)
    elif path.suffix.lower() in (LIST, STREAMS) and depth < _DEEPEST:
        for line in _lines(path):
            _sort(line, inputs, depth + 1)
    elif not os.path.exists(path) and glob.has_magic(text):
        fitting = sorted(glob.glob(text, recursive=True))
        if not fitting:
            raise UsageError(f"No file fits the pattern {text}.")
        for name in fitting:
            _sort(Path(name), inputs, depth)
    elif path.suffix.lower() in SUFFIXES:
        inputs.videos.append((path, Path()))
    else:
        inputs.images.append(path)


def _sort_folder(folder: Path, inputs: Inputs) -> None:
    """A folder counts as one of images unless it holds videos only."""
    suffixes = readable_videos()
    found = [path for path in walk(folder).files if path.suffix.lower() in suffixes]
    if found:
        from .mp4 import is_our_video

        found = [path for path in found if not is_our_video(folder / path)]
        inputs.videos += [(folder / path, path.parent) for path in found]
    if not found or _holds_others(folder):
        inputs.images.append(folder)


def _holds_others(folder: Path) -> bool:
    """Whether a folder holds files that look like images."""
    from ..image.picture_formats import readable_suffixes

    suffixes = readable_suffixes()
    return any(path.suffix.lower() in suffixes for path in walk(folder).files)


def _lines(path: Path) -> Iterator[str | Path | int]:
    """A list's lines: addresses, cameras (in a .streams file a number is one), and paths, which begin at the list's folder."""
    streams = path.suffix.lower() == STREAMS
    kind = "a list of cameras and addresses" if streams else "a list of images and videos"
    for number, raw in enumerate(read_text(path, UsageError, kind).lstrip("\ufeff").splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        camera = camera_number(line)
        if is_address(line):
            yield line
        elif streams and camera is None:
            raise UsageError(f"{path}, line {number}: {line!r} is neither an address nor a camera's number.")
        elif streams and camera is not None:
            yield camera
        else:
            yield path.parent / line
