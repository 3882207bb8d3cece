"""Reading, writing and hashing files. Reads refuse pipes, devices and files that are too large. A write is whole or changes nothing."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from .errors import DeployError, OutputError

#: The largest file of each kind that is read. A larger one is not what it should be, or does not fit in memory.
DOCUMENT_BYTES = 16 * 2**20
RECORD_BYTES = 256 * 2**20
IMAGE_BYTES = 2**30
MODEL_BYTES = 2 * 2**30
PLAN_BYTES = 4 * 2**30

_NAME_LENGTH = 32  # characters of a file's name that its partial file's name repeats


def sha256(data: bytes) -> str:
    """Bytes to their SHA-256 as lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def write_atomic(path: Path, data: bytes) -> None:
    """Writes `data` to `path`, or leaves `path` as it was. The data goes to a file beside it, which is flushed to disk and renamed.

    Raises OutputError if the folder is missing or unwritable, or the disk is full; the partial file is removed.
    """
    with writing(path) as partial:
        partial.write_bytes(data)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A path to write to. It becomes `path` if the block succeeds and is removed if it fails."""
    path = Path(path)
    _refuse_special(path)
    partial = _beside(path, path.suffix)
    try:
        yield partial
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error.strerror or error}.", _why(path, error)) from error
    finally:
        _remove(partial)


def check_writable(path: Path) -> None:
    """Raises OutputError if `path` cannot be written. Call it before long work; it leaves no file behind."""
    path = Path(path)
    _refuse_special(path)
    if path.is_dir():
        raise OutputError(f"Cannot write {path}: it is a folder.", "Give a file name.")
    partial = _beside(path)
    try:
        partial.touch(exist_ok=False)
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error.strerror or error}.", _why(path, error)) from error
    finally:
        _remove(partial)


def make_folder(path: Path) -> Path:
    """Makes a folder if it is missing. Raises OutputError if it cannot be made or written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot make the folder {path}: {error.strerror or error}.") from error
    if not os.access(path, os.W_OK):
        raise OutputError(f"The folder {path} cannot be written to.", "Choose another one with --output.")
    return path


def _beside(path: Path, suffix: str = "") -> Path:
    """An unused name beside `path`. A long name is shortened, so that the new one is not too long for the file system."""
    return path.with_name(f".{path.name[:_NAME_LENGTH]}.{secrets.token_hex(4)}.partial{suffix[:_NAME_LENGTH]}")


def printable(text: Path | str) -> str:
    """A path or a message that can be printed and encoded anywhere: bytes that are not text are written as escapes."""
    return str(text).encode("utf-8", "backslashreplace").decode()


def _remove(partial: Path) -> None:
    """Removes the partial file if there is one. Its folder may not even exist."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        partial.unlink()


def _refuse_special(path: Path) -> None:
    """Raises OutputError for a device or a pipe, which a rename would replace, and for a name that no file can have."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error.strerror or error}.") from error
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OutputError(f"Cannot write {path}: it is not a regular file.", "Give a file name.")


def _why(path: Path, error: OSError) -> str | None:
    if not path.parent.is_dir():
        return f"The folder {path.parent} does not exist; make it first."
    if path.is_dir():
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


def _read(path: Path, error: type[DeployError], what: str, limit: int) -> bytes:
    check_readable(path, error, what, limit)
    try:
        return Path(path).read_bytes()
    except OSError as cause:
        raise error(f"Cannot read {what} {path}: {cause.strerror or cause}.") from cause
