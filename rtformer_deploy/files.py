"""Bytes in, bytes out: reads that refuse pipes, devices and oversized files, writes that leave the whole file or the old one, hashes."""

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

_KEPT = 32  # characters of a name in the name of its partial file


def sha256(data: bytes) -> str:
    """Bytes to their SHA-256 as lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def write_atomic(path: Path, data: bytes) -> None:
    """Writes `data` to `path` or leaves `path` as it was: into a file beside it, flushed to disk, then renamed.

    Raises OutputError if the folder is missing or unwritable, or the disk is full; the partial file is removed.
    """
    with writing(path) as partial:
        partial.write_bytes(data)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes `path` when the block ends well and is removed when it does not."""
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
    """Raises OutputError if `path` could not be written, so that long work is not done for nothing; leaves nothing behind."""
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
    """A folder that exists and can be written to, made where it is missing. Raises OutputError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot make the folder {path}: {error.strerror or error}.") from error
    if not os.access(path, os.W_OK):
        raise OutputError(f"The folder {path} cannot be written to.", "Choose another one with --output.")
    return path


def _beside(path: Path, suffix: str = "") -> Path:
    """A name beside `path` that nothing has; of a long name the beginning only, so that it fits wherever the name itself does."""
    return path.with_name(f".{path.name[:_KEPT]}.{secrets.token_hex(4)}.partial{suffix[:_KEPT]}")


def printable(text: Path | str) -> str:
    """A path or a message that can be printed and encoded anywhere: bytes of a name that are no text are written as escapes."""
    return str(text).encode("utf-8", "backslashreplace").decode()


def _remove(partial: Path) -> None:
    """Removes what was begun, if anything was: the folder may not even be one."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        partial.unlink()


def _refuse_special(path: Path) -> None:
    """Raises OutputError for a device or a pipe, as renaming onto it would replace it, and for a name that no file can have."""
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

    Raises `error`, naming `what` the file should have been, if it is missing, a folder, a pipe or a device, empty or larger. Only the
    file's size is looked at before that is known.
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
