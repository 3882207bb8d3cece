"""Reading, writing and hashing files. Reads refuse pipes, devices and files that are too large. A write is whole or changes nothing."""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from .errors import DeployError, OutputError
from .unfinished import IN_USE, beside, clean_up, owner

#: The largest file of each kind that is read. A larger one is not what it should be, or does not fit in memory.
DOCUMENT_BYTES = 16 * 2**20
RECORD_BYTES = 256 * 2**20
IMAGE_BYTES = 2**30
MODEL_BYTES = 2 * 2**30
PLAN_BYTES = 4 * 2**30
VIDEO_BYTES = 2**60  # videos are read piece by piece


def sha256(data: bytes) -> str:
    """Bytes to their SHA-256 as lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def json_bytes(data: Mapping[str, object] | Sequence[object]) -> bytes:
    """JSON values as the bytes of a file: indented UTF-8. Bytes of a name that are not text become JSON escapes."""
    return json.dumps(data, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def write_atomic(path: Path, data: bytes) -> None:
    """Writes `data` to `path`, or leaves `path` as it was. The data goes to a file beside it, which is flushed to disk and renamed.

    Raises OutputError if the folder is missing or unwritable, or the disk is full; the partial file is removed.
    """
    with writing(path) as partial:
        partial.write_bytes(data)


def write_together(contents: Sequence[tuple[Path, bytes]]) -> None:
    """Writes files that belong together. All of them are on the disk before the first is renamed: an error or a full disk changes none.

    Raises OutputError as `write_atomic`.
    """
    with contextlib.ExitStack() as stack:
        partials = [(path, stack.enter_context(_partial(path))) for path, _ in contents]
        for (path, partial), (_, data) in zip(partials, contents, strict=True):
            with _explaining(path):
                partial.write_bytes(data)
                _flush(partial)
        for path, partial in partials:
            with _explaining(path):
                os.replace(partial, path)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A path to write to. It becomes `path` if the block succeeds and is removed if it fails."""
    path = Path(path)
    with _partial(path) as partial, _explaining(path):
        yield partial
        _flush(partial)
        os.replace(partial, path)


@contextlib.contextmanager
def _partial(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to, removed at the end if it is still there."""
    _refuse_special(path)
    partial = beside(path, path.suffix)
    IN_USE.add(partial.name)
    try:
        yield partial
    finally:
        with contextlib.suppress(OSError):  # it was renamed, or never made
            partial.unlink()
        IN_USE.discard(partial.name)


@contextlib.contextmanager
def _explaining(path: Path) -> Iterator[None]:
    """Turns an OSError into an OutputError about `path`."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error.strerror or error}.", _why(path, error)) from error


def _flush(partial: Path) -> None:
    with open(partial, "rb") as file:
        os.fsync(file.fileno())


def check_writable(path: Path) -> None:
    """Raises OutputError if `path` cannot be written. Call it before long work; it leaves no file behind."""
    path = Path(path)
    _refuse_special(path)
    if os.path.isdir(path):
        raise OutputError(f"Cannot write {path}: it is a folder.", "Give a file name.")
    with _partial(path) as partial, _explaining(path):
        partial.touch(exist_ok=False)


def check_folder(path: Path) -> None:
    """Raises OutputError if `make_folder` would fail: the folder, or the nearest one above it, must be a folder that can be written to."""
    there = Path(path)
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    if not os.path.isdir(there):
        raise OutputError(f"Cannot make the folder {path}: {there} is not a folder.")
    _check_room(there)


def make_folder(path: Path) -> Path:
    """Makes a folder if it is missing. Raises OutputError if it cannot be made or written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot make the folder {path}: {error.strerror or error}.") from error
    _check_room(path)
    return path


def _check_room(folder: Path) -> None:
    """Raises OutputError if no file can be made in a folder; it leaves none behind."""
    with _partial(folder / "file") as partial:
        try:
            partial.touch(exist_ok=False)
        except OSError as error:
            what = f"Cannot write to the folder {folder}: {error.strerror or error}."
            raise OutputError(what, "Choose another one with --output.") from error


def remove(path: Path) -> None:
    """Removes a file if it is there. Raises OutputError if it cannot be removed."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot remove {path}: {error.strerror or error}.") from error


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A new folder for temporary files, removed at the end; those that killed processes left behind are removed first.

    Raises OutputError if there is no place for one.
    """
    try:
        place = Path(tempfile.gettempdir())
        clean_up(place)
        folder = Path(tempfile.mkdtemp(prefix=f"rtformer-deploy-{owner()}-", dir=place))
    except OSError as error:
        hint = "Set TMPDIR to a folder that can be written to."
        raise OutputError(f"Cannot make a temporary folder: {error.strerror or error}.", hint) from error
    IN_USE.add(folder.name)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        IN_USE.discard(folder.name)


@contextlib.contextmanager
def partial_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path` to fill. Whoever has made it whole renames it; it is removed at the end if it is still there."""
    partial = beside(path, "")
    IN_USE.add(partial.name)
    try:
        yield make_folder(partial)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        IN_USE.discard(partial.name)


def printable(text: Path | str) -> str:
    """A path or a message that can be printed and encoded anywhere: bytes that are not text are written as escapes."""
    return str(text).encode("utf-8", "backslashreplace").decode()


def _refuse_special(path: Path) -> None:
    """Raises OutputError for a device or a pipe, which a rename would replace, and for a name that no file can have or nobody means."""
    if str(path) == "-":  # elsewhere that is standard output
        raise OutputError("Cannot write to standard output: files are written whole or not at all.", "Give a file name instead of -.")
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error.strerror or error}.") from error
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OutputError(f"Cannot write {path}: it is not a regular file.", "Give a file name.")


def _why(path: Path, error: OSError) -> str | None:
    if not os.path.isdir(path.parent):
        there = os.path.lexists(path.parent)
        return f"{path.parent} is not a folder." if there else f"The folder {path.parent} does not exist; make it first."
    if os.path.isdir(path):
        return "It is a folder; give a file name."
    return None


def read_bytes(path: Path, error: type[DeployError], what: str, limit: int = MODEL_BYTES) -> bytes:
    """A regular file's bytes, at least one and at most `limit`.

    Raises `error` if the file is missing, empty, too large, a folder, a pipe or a device; the message says `what` the file should have
    been. The size is checked before the file is read.
    """
    data = _read(path, error, what, limit)
    if not data:
        raise error(f"{path} is empty; it should be {what}.")
    return data


def read_part(path: Path, offset: int, size: int, error: type[DeployError], what: str) -> bytes:
    """`size` bytes of a regular file from `offset` on. Raises `error`, also if the file ends before."""
    check_readable(path, error, what, VIDEO_BYTES)
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            data = file.read(size)
    except OSError as cause:
        raise error(f"Cannot read {what} {path}: {cause.strerror or cause}.") from cause
    if len(data) != size:
        raise error(f"{path} is too short to be {what}.")
    return data


def read_text(path: Path, error: type[DeployError], what: str, limit: int = DOCUMENT_BYTES, *, errors: str = "strict") -> str:
    """A regular file's UTF-8 text, at most `limit` bytes and maybe empty; `errors` as in bytes.decode. Raises as `read_bytes`."""
    try:
        return _read(path, error, what, limit).decode(errors=errors)
    except UnicodeDecodeError as cause:
        raise error(f"{path} cannot be read as {what}: it is not UTF-8 text ({cause.reason} at byte {cause.start}).") from cause


def sha256_of(path: Path, error: type[DeployError], what: str, limit: int = MODEL_BYTES) -> str:
    """The SHA-256 of a regular file of at most `limit` bytes, which is never whole in memory. Raises as `read_bytes`, but not if empty."""
    check_readable(path, error, what, limit)
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as cause:
        raise error(f"Cannot read {what} {path}: {cause.strerror or cause}.") from cause


def check_readable(path: Path, error: type[DeployError], what: str, limit: int = MODEL_BYTES) -> None:
    """Raises `error` unless `path` is a regular file of at most `limit` bytes; opens nothing, so a pipe does not block."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as cause:  # ValueError: a null character
        raise error(f"Cannot read {what} {path}: {getattr(cause, 'strerror', None) or cause}.") from cause
    if stat.S_ISDIR(status.st_mode):
        raise error(f"Cannot read {what} {path}: it is a folder.", "Give a file name.")
    if not stat.S_ISREG(status.st_mode):
        raise error(f"Cannot read {what} {path}: it is a pipe or a device, not a regular file.", "Give a file name.")
    if status.st_size > limit:
        raise error(f"{path} is too large to be {what}: {status.st_size:,} bytes, more than {limit:,}.")


def size_of_file(path: Path, error: type[DeployError]) -> int:
    """A file's bytes, counted; it is not opened. Raises `error`."""
    try:
        return os.stat(path).st_size
    except OSError as cause:
        raise error(f"Cannot read {path}: {cause.strerror or cause}.") from cause


def holds(path: Path, start: bytes, words: bytes, most: int = MODEL_BYTES) -> bool:
    """Whether a file begins with `start` and has `words` in its first `most` bytes; False for one that is not regular or cannot be read."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return data[: len(start)] == start and data.find(words, 0, most) >= 0
    except (OSError, ValueError):  # ValueError: an empty file
        return False


def ends_of(path: Path, first: int, last: int) -> tuple[bytes, bytes] | None:
    """A regular file's first and last bytes, at most so many; None if it is not there, or not a file that can be read."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        with open(path, "rb") as file:
            start = file.read(first)
            file.seek(max(0, os.fstat(file.fileno()).st_size - last))
            return start, file.read(last)
    except OSError:
        return None


def _read(path: Path, error: type[DeployError], what: str, limit: int) -> bytes:
    check_readable(path, error, what, limit)
    try:
        return Path(path).read_bytes()
    except OSError as cause:
        raise error(f"Cannot read {what} {path}: {cause.strerror or cause}.") from cause
