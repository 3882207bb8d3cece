"""Places that every node of a cluster reads and writes: a folder that all of them see, or a bucket's prefix (s3://, gs://).

Credentials come from the environment. Where a bucket is, if that is not its cloud, stands behind a question mark, as pyarrow takes it:
s3://bucket/prefix?endpoint_override=localhost:9000&scheme=http.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from .. import files
from ..errors import DeployError, OutputError, UsageError, first_line
from ..image.folders import walk
from ..image.png import HEAD_BYTES, ends_as_png, is_marked
from ..machine import require
from ..stream.network import is_object
from ..stream.sinks import JSON_START

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_MARK, _LAST = HEAD_BYTES, 16  # bytes at a file's start and at its end that say whether it is whole


class Store(Protocol):
    """Files by their names, which are relative and have / between their parts. `folder` is the local folder, None in a bucket."""

    text: str
    folder: Path | None

    def names(self) -> list[str]:
        """The names of all files, sorted; hidden ones are left out. Raises UsageError if the place is not there."""
        ...

    def read(self, name: str, error: type[DeployError], what: str, limit: int = files.MODEL_BYTES) -> bytes:
        """A file's bytes, at least one and at most `limit`. Raises `error`."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Writes a file whole or not at all. Raises OutputError."""
        ...

    def remove(self, name: str) -> None:
        """Removes a file if it is there. Raises OutputError."""
        ...

    def ends(self, name: str) -> tuple[bytes, bytes] | None:
        """A file's first and last bytes; None if it is not there."""
        ...


def open_store(text: str) -> Store:
    """A place as a user writes it -> its Store. Raises UsageError for an address that is none, MissingPackageError without pyarrow."""
    return Bucket(text) if is_object(text) else _Folder(Path(text))


def is_whole(store: Store, name: str) -> bool:
    """Whether an output of ours is there to its last byte: a PNG with our mark and its end, or a JSON document of answers."""
    ends = store.ends(name)
    if ends is None:
        return False
    start, last = ends
    if name.endswith(".png"):
        return is_marked(start) and ends_as_png(last)
    return start.startswith(JSON_START.encode()) and last.rstrip().endswith(b"}")


def is_ours(store: Store, name: str) -> bool:
    """Whether a file that is there was written by this program, whole or not."""
    ends = store.ends(name)
    return ends is not None and (is_marked(ends[0]) or ends[0].startswith(JSON_START.encode()) or not ends[0])


class _Folder:
    """Implements Store over a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder: Path | None = folder.absolute()
        self._folder, self.text = folder.absolute(), str(folder.absolute())

    def names(self) -> list[str]:
        return [path.as_posix() for path in walk(self._folder).files] if os.path.isdir(self._folder) else []

    def read(self, name: str, error: type[DeployError], what: str, limit: int = files.MODEL_BYTES) -> bytes:
        return files.read_bytes(self._folder / name, error, what, limit)

    def write(self, name: str, data: bytes) -> None:
        path = self._folder / name
        files.make_folder(path.parent)
        files.write_atomic(path, data)

    def remove(self, name: str) -> None:
        files.remove(self._folder / name)

    def ends(self, name: str) -> tuple[bytes, bytes] | None:
        return files.ends_of(self._folder / name, _MARK, _LAST)


class Bucket:
    """Implements Store over a bucket's prefix, through pyarrow.fs. An object is there when it is whole: it is put at once."""

    def __init__(self, text: str) -> None:
        self.folder: Path | None = None
        self.text = text
        parts = urlsplit(text)
        if not parts.netloc:
            raise UsageError(f"{shown_place(text)} names no bucket.", "Write it as in s3://bucket/prefix.")
        if "@" in parts.netloc or "key" in parts.query.lower():
            raise UsageError(
                f"{shown_place(text)} carries credentials, which would stand in the manifest.",
                "Set them in the environment of every node, as in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
            )
        require("pyarrow", "cluster", f"Reading and writing {shown_place(text)}")
        self._system, self._root = _file_system(text)

    def names(self) -> list[str]:
        from pyarrow.fs import FileSelector, FileType

        with self._explaining("list", UsageError):
            found = self._system.get_file_info(FileSelector(self._root, recursive=True, allow_not_found=True))
            if not found and self._system.get_file_info(self._root.partition("/")[0]).type is FileType.NotFound:
                raise UsageError(
                    f"There is no bucket {self._root.partition('/')[0]}.", f"Make it first; {shown_place(self.text)} needs it."
                )
        names = [str(each.path)[len(self._root) :].lstrip("/") for each in found if each.type is FileType.File]
        return sorted(name for name in names if not any(part.startswith(".") for part in name.split("/")))

    def is_single_file(self) -> bool:
        """Whether the address names an object."""
        from pyarrow.fs import FileType

        with self._explaining("read", UsageError):
            return bool(self._system.get_file_info(self._root).type is FileType.File)

    def read(self, name: str, error: type[DeployError], what: str, limit: int = files.MODEL_BYTES) -> bytes:
        with self._explaining(f"read {what}", error, name), self._system.open_input_file(self._path(name)) as file:
            size = file.size()
            if not 0 < size <= limit:
                raise error(f"{self._shown(name)} has {size:,} bytes; {what} has 1 to {limit:,}.")
            return bytes(file.read())

    def write(self, name: str, data: bytes) -> None:
        with self._explaining("write", OutputError, name), self._system.open_output_stream(self._path(name)) as file:
            file.write(data)

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError), self._explaining("remove", OutputError, name):
            self._system.delete_file(self._path(name))

    def ends(self, name: str) -> tuple[bytes, bytes] | None:
        try:
            with self._explaining("read", OutputError, name), self._system.open_input_file(self._path(name)) as file:
                size = file.size()
                return bytes(file.read_at(min(size, _MARK), 0)), bytes(file.read_at(min(size, _LAST), max(0, size - _LAST)))
        except FileNotFoundError:
            return None

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _shown(self, name: str) -> str:
        return shown_input(self.text, name)

    @contextlib.contextmanager
    def _explaining(self, what: str, kind: type[DeployError], name: str | None = None) -> Iterator[None]:
        """Turns pyarrow's errors into one of ours; what is not there stays a FileNotFoundError for whoever asks whether it is."""
        shown = shown_place(self.text) if name is None else self._shown(name)
        try:
            yield
        except FileNotFoundError as error:
            if kind is OutputError and what != "write":
                raise
            raise kind(f"Cannot {what} {shown}: it is not there.", None if what != "write" else "Make the bucket first.") from error
        except OSError as error:
            why, hint = _reason(error)
            raise kind(f"Cannot {what} {shown}: {why}.", hint) from error


@functools.cache
def _file_system(text: str) -> tuple[FileSystem, str]:
    """An address -> pyarrow's file system and the path in it: BUCKET or BUCKET/PREFIX."""
    import pyarrow as pa
    from pyarrow.fs import FileSystem

    try:
        system, path = FileSystem.from_uri(text)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UsageError(f"{shown_place(text)} cannot be opened: {first_line(error)}.", "Write it as in s3://bucket/prefix.") from error
    return system, str(path).rstrip("/")


def shown_place(text: str) -> str:
    """A place as it may be printed: without what follows a question mark, and without credentials."""
    from ..stream.network import shown

    return shown(text) if is_object(text) else text


def shown_input(place: str, name: str) -> str:
    """A file in a place as it may be printed."""
    return f"{shown_place(place).rstrip('/')}/{name}"


_RIGHTS = "Give the credentials in the environment the rights to list, read and write there."
#: What stores say, and what a person should read instead. The first that fits counts.
_REASONS: tuple[tuple[str, str, str | None], ...] = (
    ("NO_SUCH_BUCKET", "there is no such bucket", "Make the bucket first, or fix its name."),
    ("does not exist", "there is no such bucket", "Make the bucket first, or fix its name."),
    ("ACCESS_DENIED", "the store does not allow it", _RIGHTS),
    ("INVALID_ACCESS_KEY_ID", "the store does not know these credentials", "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."),
    ("SIGNATURE", "the store does not know these credentials", "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."),
    ("HTTP response code 403", "the store does not allow it", _RIGHTS),
    ("NETWORK_CONNECTION", "the store does not answer", "Check the address behind endpoint_override, and the network."),
)  # fmt: skip


def _reason(error: OSError) -> tuple[str, str | None]:
    """Why a store failed, in words, and what to do about it."""
    text = str(error)
    return next(((reason, hint) for mark, reason, hint in _REASONS if mark in text), (first_line(error), None))
