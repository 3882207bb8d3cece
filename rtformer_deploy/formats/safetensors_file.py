"""Reads safetensors files, plain or compressed with xz. Before the library reads one, its header is checked: it must not be larger than
weights need."""

from __future__ import annotations

import lzma
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors

from ..errors import WeightsError, first_line
from ..files import MODEL_BYTES, check_readable, read_bytes
from .documents import parse_json

#: How the names of a network's weights end.
SUFFIXES = (".safetensors", ".safetensors.xz")

#: The metadata key of a training run's checkpoint.
CHECKPOINT_KEY = "rtformer_deploy.training"

_MOST_HEADER_BYTES = 16 * 2**20
_LENGTH_BYTES = 8
_XZ_MEMORY = 2**28  # what a decoder may take; `xz -9e` needs a quarter
#: For values of two bytes: every second one, with the exponent, repeats itself; the others hardly do.
_XZ_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6, "lc": 0, "lp": 1, "pb": 1}]
_HINT = "Copy or download it again."


@dataclass(frozen=True, slots=True)
class Header:
    """What a safetensors file says of itself: its metadata, and each tensor's type, as the format writes it (F16), and shape."""

    metadata: dict[str, str]
    tensors: dict[str, tuple[str, list[int]]]


def is_weights(path: Path) -> bool:
    """Whether a file's name says that it holds a network's weights."""
    return path.name.lower().endswith(SUFFIXES)


def read_safetensors(path: Path) -> bytes:
    """A safetensors file -> its bytes, decompressed; not looked at otherwise. Raises WeightsError."""
    data = read_bytes(path, WeightsError, "weights", MODEL_BYTES)
    return _decompressed(data, str(path)) if _is_compressed(path) else data


def pack(data: bytes, path: Path) -> bytes:
    """A safetensors file's bytes -> what a file of this name holds: compressed or as they are."""
    return lzma.compress(data, lzma.FORMAT_XZ, filters=_XZ_FILTERS) if _is_compressed(path) else data


def read_header(path: Path) -> Header:
    """A safetensors file -> its Header; no tensor is read. Raises WeightsError if it is not such a file."""
    if _is_compressed(path):
        return _compressed_header(path)
    with open_safetensors(path, "np") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        return Header(dict(file.metadata() or {}), {name: (part.get_dtype(), part.get_shape()) for name, part in slices.items()})


def open_safetensors(path: Path, framework: str) -> safetensors.safe_open:
    """A safetensors file that is not compressed -> the open file, a context manager. `framework` is "np" or "pt". Raises WeightsError."""
    check_readable(path, WeightsError, "weights", MODEL_BYTES)
    try:
        with open(path, "rb") as file:
            head = file.read(_LENGTH_BYTES)
            check_header(head, path.stat().st_size, str(path))
        return safetensors.safe_open(path, framework)
    except WeightsError:
        raise
    except Exception as error:  # SafetensorError, OSError, and whatever a damaged header leads to
        raise not_safetensors(str(path), error) from error


def check_header(head: bytes, size: int, name: str) -> None:
    """Checks the first bytes of a file of `size` bytes. Raises WeightsError if the header does not fit or is too large."""
    length = int.from_bytes(head[:_LENGTH_BYTES], "little")
    if len(head) < _LENGTH_BYTES or length > size - _LENGTH_BYTES:
        raise WeightsError(f"{name} is not a safetensors file, or was cut short: its header does not fit in it.", _HINT)
    if length > _MOST_HEADER_BYTES:
        raise WeightsError(f"{name} is refused: its header takes {length:,} bytes, more than {_MOST_HEADER_BYTES:,}.", _HINT)


def not_safetensors(name: str, error: Exception) -> WeightsError:
    """The error to raise if the library cannot read a file."""
    return WeightsError(f"{name} is not a safetensors file, or was cut short: {first_line(error)}.", _HINT)


def _is_compressed(path: Path) -> bool:
    return path.suffix.lower() == ".xz"


def _compressed_header(path: Path) -> Header:
    """Decompresses the header alone. What the library would find wrong with it is found when the tensors are read."""
    check_readable(path, WeightsError, "weights", MODEL_BYTES)
    try:
        with lzma.LZMAFile(path, format=lzma.FORMAT_XZ) as file:
            head = file.read(_LENGTH_BYTES)
            check_header(head, MODEL_BYTES, str(path))
            described: dict[str, Any] = parse_json(file.read(int.from_bytes(head, "little")), _MOST_HEADER_BYTES)
        metadata = {str(key): str(value) for key, value in described.pop("__metadata__", {}).items()}
        return Header(metadata, {name: (str(each["dtype"]), [int(n) for n in each["shape"]]) for name, each in described.items()})
    except WeightsError:
        raise
    except Exception as error:  # LZMAError, EOFError, and whatever a damaged header leads to
        raise not_safetensors(str(path), error) from error


def _decompressed(data: bytes, name: str) -> bytes:
    """The one xz stream that `data` must be -> what it holds, if that is no more than weights may be."""
    decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY)
    try:
        plain = decoder.decompress(data, MODEL_BYTES)
    except lzma.LZMAError as error:
        raise not_safetensors(name, error) from error
    if decoder.eof and not decoder.unused_data:
        return plain
    if len(plain) == MODEL_BYTES:
        raise WeightsError(f"{name} is refused: decompressed it takes more than {MODEL_BYTES:,} bytes.")
    raise WeightsError(f"{name} was cut short, or holds more than one xz stream.", _HINT)
