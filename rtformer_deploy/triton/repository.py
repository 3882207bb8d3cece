"""A repository on disk: what is in it, whether it may be replaced, and the swap of a whole one."""

from __future__ import annotations

import dataclasses
import os
import secrets
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from ..errors import OutputError
from ..files import PLAN_BYTES, check_folder, json_bytes, make_folder, partial_folder, read_text, sha256, sha256_of, write_atomic
from ..formats.conversion import convert_tolerant
from ..formats.documents import JSON_BYTES, DocumentError, parse_json
from ..formats.engine_file import runtime_cache, sidecar
from ..machine import own_version
from ..types import FileName, PathText, Sha256, Text
from ..unfinished import clean_up
from .layout import Folder, Settings, accelerator_of
from .source import Runs, Source
from .steps import ENGINE_FILES, PLAN
from .target import needs_of

#: The document that says what a repository holds; Triton looks at folders only.
MANIFEST = "rtformer-deploy.json"
_CONFIG = "config.pbtxt"
_ANOTHER = "Choose another folder, or an empty one."
Folders = Annotated[tuple[FileName, ...], Meta(min_length=1, max_length=16)]


@dataclass(frozen=True, slots=True)
class Served:
    """A model of a repository: its folders, what runs it, and what Triton's machine needs for it."""

    name: FileName
    runs: Runs
    folders: Folders
    needs: tuple[Text, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a repository holds. `files` are the hashes of all its files as they were written, by their path with slashes."""

    models: Annotated[tuple[Served, ...], Meta(min_length=1)]
    files: Mapping[PathText, Sha256]
    written_by: Text


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository in memory: its manifest, and the bytes of its other files."""

    manifest: Manifest
    files: Mapping[str, bytes]


def repository_of(sources: Sequence[Source], folders: Mapping[str, Sequence[Folder]], settings: Settings) -> Repository:
    """Models and their folders -> their repository."""
    files = {f"{folder.config.name}/{path}": data for own in folders.values() for folder in own for path, data in _contents(folder)}
    models = tuple(
        Served(
            source.name,
            source.runs,
            tuple(folder.config.name for folder in folders[source.name]),
            needs_of(source, accelerator_of(source, settings)),
        )
        for source in sources
    )
    hashes = {path: sha256(data) for path, data in sorted(files.items())}
    return Repository(Manifest(models, hashes, f"rtformer-deploy {own_version()}"), files)


def load_manifest(folder: Path) -> Manifest:
    """A repository's manifest. Raises OutputError if the folder is no repository of this program."""
    try:
        text = read_text(folder / MANIFEST, OutputError, "a repository's manifest", JSON_BYTES)
    except OutputError as error:
        what = f"{folder} is no repository that rtformer-deploy wrote: there is no {MANIFEST} in it that can be read."
        raise OutputError(what) from error
    try:
        return convert_tolerant(parse_json(text), Manifest)[0]
    except DocumentError as error:
        raise OutputError(f"{folder / MANIFEST} cannot be read: {error}.") from error


def check_place(folder: Path, names: Collection[str], *, overwrite: bool = False) -> None:
    """Raises OutputError if a repository of the models `names` cannot or must not be written to a folder; it changes nothing there.

    A repository of this program is replaced in whole, unless it holds another model, or a file in it was changed; `overwrite` allows
    these two. Other files are never replaced.
    """
    place = Path(os.path.realpath(folder))
    if not os.path.lexists(place):
        check_folder(place)
        return
    if not os.path.isdir(place):
        raise OutputError(f"{folder} is not a folder.", _ANOTHER)
    check_folder(place.parent)
    try:
        there = sorted(_files_in(place))
    except OSError as error:
        raise OutputError(f"Cannot read {error.filename}: {error.strerror}.", _ANOTHER) from error
    if not there and not any(place.iterdir()):
        return
    manifest = _own_manifest(folder, place)
    foreign = next((path for path in there if path not in manifest.files and not _may_appear(path)), None)
    if foreign is not None:
        raise OutputError(f"{folder} holds {foreign}, which rtformer-deploy did not write.", f"Move it away. {_ANOTHER}")
    if overwrite:
        return
    others = sorted({model.name for model in manifest.models} - set(names))
    if others:
        what = f"{folder} holds another model, {others[0]}, which would be lost."
        raise OutputError(what, "Name all models of the repository, add --overwrite, or choose another folder.")
    changed = next((path for path in there if path in manifest.files and _is_changed(place, path, manifest)), None)
    if changed is not None:
        raise OutputError(f"{folder / changed} was changed since it was written.", "Add --overwrite to lose the change.")


def write_repository(repository: Repository, folder: Path) -> Path | None:
    """Writes a repository beside its place and swaps it in whole. Raises OutputError; then the place is as it was.

    Returns where the old one is if it could not be removed, because others own files in it.
    """
    place = Path(os.path.realpath(folder))
    make_folder(place.parent)
    clean_up(place.parent)
    with partial_folder(place) as partial:
        files = {partial / path: data for path, data in {**repository.files, MANIFEST: _document(repository.manifest)}.items()}
        for parent in {file.parent for file in files}:
            make_folder(parent)
        for file, data in files.items():
            write_atomic(file, data)
        return _swap(partial, place)


def _swap(partial: Path, place: Path) -> Path | None:
    """Renames a new folder into its place. An old one there is moved aside and removed; returns it if it could not be removed."""
    aside = place.with_name(f".{place.name[:24]}.old-{secrets.token_hex(4)}")
    try:
        if os.path.lexists(place):
            os.rename(place, aside)
        try:
            os.rename(partial, place)
        except BaseException:
            if os.path.lexists(aside):
                os.rename(aside, place)
            raise
    except OSError as error:
        hint = "If something else is mounted there, name a folder inside of it."
        raise OutputError(f"Cannot replace {place}: {error.strerror or error}.", hint) from error
    shutil.rmtree(aside, ignore_errors=True)
    return aside if os.path.lexists(aside) else None


def _contents(folder: Folder) -> Iterator[tuple[str, bytes]]:
    yield _CONFIG, folder.config.text().encode()
    yield from folder.files.items()


def _document(manifest: Manifest) -> bytes:
    return json_bytes({"version": 1, **dataclasses.asdict(manifest)})


def _own_manifest(folder: Path, place: Path) -> Manifest:
    try:
        return load_manifest(place)
    except OutputError as error:
        raise OutputError(error.what.replace(str(place), str(folder)), _ANOTHER) from error


def _files_in(place: Path) -> Iterator[str]:
    """The paths of all files and links in a folder, with slashes, but for the manifest."""
    for base, folders, files in os.walk(place, onerror=_raise):
        links = [name for name in folders if os.path.islink(os.path.join(base, name))]
        for name in (*files, *links):
            path = Path(base, name).relative_to(place).as_posix()
            if path != MANIFEST:
                yield path


def _raise(error: OSError) -> None:
    raise error


def _may_appear(path: str) -> bool:
    """Whether a file is one that a running Triton makes: compiled Python, or the kernels that TensorRT-RTX keeps."""
    parts = path.split("/")
    return (parts[-2:-1] == ["__pycache__"] and parts[-1].endswith(".pyc")) or parts[-1] == runtime_cache(Path(PLAN)).name


def _is_changed(place: Path, path: str, manifest: Manifest) -> bool:
    """Whether a file is not as it was written. A plan's sidecar may be completed where the plan is first opened."""
    if path.rsplit("/", 1)[-1] in {sidecar(Path(name)).name for name in ENGINE_FILES.values()}:
        return False
    file = place / path
    return os.path.islink(file) or sha256_of(file, OutputError, "a file of the repository", PLAN_BYTES) != manifest.files[path]
