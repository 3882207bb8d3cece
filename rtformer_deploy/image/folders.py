"""Lists the files of a folder and its sub-folders, for every command. Links are followed without loops; hidden files are left out.

Files that are left out are counted by reason, for a message of one line.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import ImageError
from ..types import Say
from .picture_formats import missing_decoder, readable_suffixes
from .png import is_ours
from .reader import silent

#: Folders that programs leave behind, with copies of pictures. Folders whose name begins with a dot are skipped too.
_LEFT_BEHIND = frozenset({"__MACOSX", "@eaDir"})
_MOST_REASONS = 12  # that the line names

OURS = "pictures that rtformer-deploy wrote"


@dataclass(frozen=True, slots=True)
class Contents:
    """The files of a folder and of its sub-folders, relative to it, sorted; and how many were left out for which reason."""

    folder: Path
    files: tuple[Path, ...]
    left_out: Counter[str] = field(default_factory=Counter)

    def line(self) -> str | None:
        """One line that says what was left out and why; None if nothing was."""
        if not self.left_out:
            return None
        counts = [f"{reason} ({count:,})" for reason, count in self.left_out.most_common()]
        more = [f"files of {len(counts) - _MOST_REASONS} more kinds"] if len(counts) > _MOST_REASONS else []
        return f"Left out of {self.folder}: {', '.join(counts[:_MOST_REASONS] + more)}."


def walk(folder: Path) -> Contents:
    """The files of a folder and its sub-folders, without hidden ones. Raises ImageError if the folder itself cannot be read.

    A linked folder is followed unless it leads back to a folder above it or was read already. Real folders come first: if a file has
    two paths, it gets the one without a link. A broken link counts as a file if it has an image's suffix, so that reading it raises an
    error.
    """
    files: list[Path] = []
    left_out: Counter[str] = Counter()
    seen = {_identity(folder)}
    folders, links = [Path()], list[Path]()
    while folders or links:
        if folders:
            here = folders.pop()
        else:
            links.sort()
            here = links.pop(0)
            if _leads_back(folder / here):
                left_out["links that lead back to a folder above"] += 1
                continue
            if _identity(folder / here) in seen:
                left_out["links to folders that were read already"] += 1
                continue
            seen.add(_identity(folder / here))
        for entry in _entries(folder, here, left_out):
            path = here / entry.name
            if entry.name.startswith(".") or entry.name in _LEFT_BEHIND:
                left_out.update(["hidden files"] * _hides_an_image(entry))
            elif _is_folder(entry):
                if entry.is_symlink():
                    links.append(path)
                elif _identity(folder / path) not in seen:
                    seen.add(_identity(folder / path))
                    folders.append(path)
            elif _is_file(entry) or (_leads_nowhere(entry) and _looks_like_an_image(entry.name)):
                files.append(path)
            else:
                left_out["links that lead nowhere" if _leads_nowhere(entry) else "not regular files"] += 1
    return Contents(folder, tuple(sorted(files)), left_out)


def images_in(folder: Path, say: Say = silent, others: Collection[str] = ()) -> list[Path]:
    """The images of a folder and its sub-folders, by suffix, sorted; `say` gets one line if files were left out.

    It leaves out what `walk` leaves out, files without an image's suffix, and pictures that this program wrote. Files whose suffix is in
    `others` are read by somebody else, so they are not mentioned. Raises ImageError if there is no image.
    """
    contents = walk(folder)
    suffixes, left_out = readable_suffixes(), contents.left_out
    images = []
    for path in contents.files:
        if path.suffix.lower() in others:
            continue
        if path.suffix.lower() not in suffixes:
            left_out[_no_image(path.suffix.lower())] += 1
        elif is_ours(folder / path):
            left_out[OURS] += 1
        else:
            images.append(folder / path)
    line = contents.line()
    if not images:
        hint = line or f"Images are files that end in {', '.join(sorted(suffixes))}."
        raise ImageError(f"The folder {folder} holds no image.", hint)
    if line is not None:
        say(line)
    return images


def _no_image(suffix: str) -> str:
    """Why a file with this suffix is left out."""
    needs = missing_decoder(suffix)
    if needs is not None:
        return f"{suffix}, which needs {needs}"
    return f"{suffix}, which is not read" if suffix else "files without a suffix"


def _entries(folder: Path, here: Path, left_out: Counter[str]) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder / here) as entries:
            yield from entries
    except OSError as error:
        if here == Path():
            raise ImageError(f"Cannot read the folder {folder}: {error.strerror or error}.") from error
        left_out[f"the folder {here}: {error.strerror or error}"] += 1


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link to itself
        return False


def _leads_nowhere(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path)


def _looks_like_an_image(name: str) -> bool:
    return Path(name).suffix.lower() in readable_suffixes()


def _hides_an_image(entry: os.DirEntry[str]) -> bool:
    """Whether a hidden file, or a file in a hidden folder, looks like an image."""
    names = [entry.name]
    if _is_folder(entry):
        try:
            names = os.listdir(entry.path)
        except OSError:
            return False
    return any(_looks_like_an_image(name) for name in names)


def _identity(folder: Path) -> tuple[int, int] | None:
    """A folder's device and inode; None if they cannot be read, which `_entries` reports."""
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _leads_back(link: Path) -> bool:
    """Whether a linked folder is the folder that the link lies in, or one above it."""
    target, place = Path(os.path.realpath(link)), Path(os.path.realpath(link.parent))
    return target == place or target in place.parents
