"""Reads safetensors files, plain or compressed with xz. Before the library reads one, its header is checked: it must not be larger than
weights need."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors

from ..errors import WeightsError, first_line
from ..files import MODEL_BYTES, check_readable, read_bytes
from .documents import DocumentError, parse_json
from .xz import HINT as _HINT
from .xz import XzReader, compress

#: How the names of a network's weights end.
SUFFIXES = (".safetensors", ".safetensors.xz")

#: The metadata key of a training run's checkpoint.
CHECKPOINT_KEY = "rtformer_deploy.training"

_MOST_HEADER_BYTES = 16 * 2**20
_LENGTH_BYTES = 8


@dataclass(frozen=True, slots=True)
class Header:
    """What a safetensors file says of itself: its metadata, and each tensor's type, as the format writes it (F16), and shape."""

    metadata: dict[str, str]
    tensors: dict[str, tuple[str, list[int]]]


def is_weights(path: Path) -> bool:
    """Whether a file's name says that it holds a network's weights."""
    return path.name.lower().endswith(SUFFIXES)


def stem_of(path: Path) -> str:
    """A file's name without its suffix: model of model.onnx, and of model.safetensors.xz."""
    return Path(path.stem).stem if _is_compressed(path) else path.stem


def read_safetensors(path: Path) -> bytes:
    """A safetensors file -> its bytes, decompressed; of a plain one not looked at. Raises WeightsError."""
    return _decompressed(path) if _is_compressed(path) else read_bytes(path, WeightsError, "weights", MODEL_BYTES)


def pack(data: bytes, path: Path) -> bytes:
    """A safetensors file's bytes -> what a file of this name holds: compressed or as they are."""
    return compress(data) if _is_compressed(path) else data


def read_header(path: Path) -> Header:
    """A safetensors file -> its Header; no tensor is read. Raises WeightsError if it is not such a file."""
    if _is_compressed(path):
        return _compressed_header(path)
    with open_safetensors(path, "np") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        return Header(dict(file.metadata() or {}), {name: (part.get_dtype(), part.get_shape()) for name, part in slices.items()})


def check_whole(path: Path) -> None:
    """Raises WeightsError if a safetensors file is not whole. The library checks plain ones; a compressed one is decompressed for it."""
    if _is_compressed(path):
        read_safetensors(path)


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
    return path.name.lower().endswith(SUFFIXES[1])


def _compressed(path: Path) -> tuple[XzReader, bytes]:
    """A compressed file, read to the end of its header -> the reader, and what it has read. Raises WeightsError."""
    reader = XzReader(read_bytes(path, WeightsError, "weights", MODEL_BYTES), str(path))
    head = reader.read(_LENGTH_BYTES)
    check_header(head, MODEL_BYTES, str(path))
    return reader, head + reader.read(int.from_bytes(head, "little"))


def _compressed_header(path: Path) -> Header:
    """Decompresses the header alone. What the library would find wrong with it is found when the tensors are read."""
    described = _described(_compressed(path)[1], path)
    try:
        metadata = {str(key): str(value) for key, value in described.pop("__metadata__", {}).items()}
        return Header(metadata, {name: (str(each["dtype"]), [int(n) for n in each["shape"]]) for name, each in described.items()})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise not_safetensors(str(path), error) from error


def _decompressed(path: Path) -> bytes:
    """What a compressed file holds: as many bytes as its header tells of."""
    reader, start = _compressed(path)
    described = _described(start, path)
    try:
        ends = [int(each["data_offsets"][1]) for name, each in described.items() if name != "__metadata__"]
    except (LookupError, OverflowError, TypeError, ValueError) as error:
        raise not_safetensors(str(path), error) from error
    size = len(start) + max([0, *ends])
    if size > MODEL_BYTES:
        raise WeightsError(f"{path} is refused: decompressed it takes {size:,} bytes, more than {MODEL_BYTES:,}.", _HINT)
    rest = reader.read(size - len(start))
    reader.end()
    return start + rest


def _described(start: bytes, path: Path) -> dict[str, Any]:
    """The JSON object behind the header's length."""
    try:
        described = parse_json(start[_LENGTH_BYTES:], _MOST_HEADER_BYTES)
    except DocumentError as error:
        raise not_safetensors(str(path), error) from error
    if not isinstance(described, dict):
        raise not_safetensors(str(path), DocumentError("its header is no object"))
    return described
