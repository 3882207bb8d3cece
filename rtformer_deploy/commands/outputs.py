"""What a command will write is checked against what it reads before any work: outputs meet neither inputs nor each other.

A file is replaced only if this program wrote it and it is of the same kind, or if the command was told to (--overwrite).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import OutputError
from ..files import check_folder, check_writable
from ..formats.engine_file import runtime_cache, sidecar
from ..unfinished import clean_up
from .kinds import PLAN, SIDECAR, Kind, kind_of

_OTHER_NAME = "Choose another name, or move that file away."


@dataclass(frozen=True, slots=True)
class Output:
    """A file to write. `updated`: the command reads it too and goes on with what it holds, such as a cache or a journal."""

    path: Path
    kind: Kind
    updated: bool = False


def outputs(*given: tuple[Path | None, Kind]) -> list[Output]:
    """The outputs that were asked for: those whose path is not None."""
    return [Output(path, kind) for path, kind in given if path is not None]


def plan_outputs(path: Path) -> list[Output]:
    """A plan and its sidecar."""
    return [Output(path, PLAN), Output(sidecar(path), SIDECAR)]


def model_inputs(*paths: Path) -> Iterator[tuple[Path, str]]:
    """Models, plans or weights to read, each with the places beside it that belong to it."""
    for path in paths:
        yield path, "itself an input"
        yield sidecar(path), f"where the sidecar of {path} belongs"
        yield runtime_cache(path), f"where the runtime cache of {path} belongs"


def file_inputs(*paths: Path | str | None) -> Iterator[tuple[Path, str]]:
    """Other files to read: those that are given and that exist. A name of a recipe or a dataset is no file."""
    for path in paths:
        if path is not None and os.path.isfile(path):
            yield Path(path), "itself an input"


def check_outputs(planned: Sequence[Output], inputs: Iterable[tuple[Path, str]] = (), *, folder: Path | None = None) -> None:
    """Raises OutputError for the first output that must not or cannot be written. Call it before the work; it changes no file.

    `folder` is one that the command will make. What killed runs left half-written beside the outputs is removed.
    """
    refuse_meeting(planned, inputs)
    refuse_foreign(planned)
    if folder is not None:
        check_folder(folder)
    for output in planned:
        if folder is None or os.path.isdir(folder) or output.path.parent != folder:
            check_writable(output.path)
    for parent in {output.path.parent for output in planned}:
        clean_up(parent)


def refuse_meeting(planned: Iterable[Output], inputs: Iterable[tuple[Path, str]], hint: str = "Choose another name.") -> None:
    """Raises OutputError if an output is an input, or if two outputs are one file; also through links and on disks that ignore case."""
    places = Places()
    read = {key: what for path, what in inputs for key in _keys(path, places.real(path))}
    written: dict[object, Output] = {}
    for output in planned:
        real = places.real(output.path)
        keys = _keys(output.path, real)
        what = next((read[key] for key in keys if key in read), None)
        if what is not None and not output.updated:
            raise OutputError(f"Cannot write {output.path}: it is {what}.", hint)
        keys.add(real.casefold())  # as disks see it that ignore case: two names that do not exist yet cannot be compared on the disk
        other = next((written[key] for key in keys if key in written), None)
        if other is not None:
            raise OutputError(
                f"Cannot write {output.path} twice: as {other.kind.name} and as {output.kind.name}.", "Give each a name of its own."
            )
        written.update(dict.fromkeys(keys, output))


def refuse_foreign(planned: Iterable[Output], hint: str = _OTHER_NAME) -> None:
    """Raises OutputError if a file that is not of the output's kind would be replaced. An empty file holds nothing to lose."""
    for output in planned:
        if is_foreign(output):
            found = kind_of(output.path)
            what = f"the file there is not {output.kind.name}" if found is None else f"it is {found.name}, not {output.kind.name}"
            raise OutputError(f"Cannot write {output.path}: {what}.", hint)


def is_foreign(output: Output) -> bool:
    """Whether a file is in the output's place that is not of its kind. Folders and devices are refused elsewhere."""
    path = output.path
    return os.path.isfile(path) and path.stat().st_size > 0 and not output.kind.fits(path)


class Places:
    """Paths without links. A folder is resolved once: a run may have a million files."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def real(self, path: Path) -> str:
        """What os.path.realpath gives."""
        folder, name = os.path.split(path)
        if name in ("", os.curdir, os.pardir) or os.path.islink(path):
            return os.path.realpath(path)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        return os.path.join(self._folders[folder], name)


def _keys(path: Path, real: str) -> set[object]:
    """What a file is known by: its path without links, and its place on the disk if it exists."""
    keys: set[object] = {real}
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return keys
    if status.st_ino:
        keys.add((status.st_dev, status.st_ino))
    return keys
