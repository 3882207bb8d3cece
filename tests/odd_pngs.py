"""PNG files that Pillow does not write: 16 bits a channel, significant bits, a few bits of grey, sizes that are not true."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

_COLOUR = {1: 0, 2: 4, 3: 2, 4: 6}  # channels -> colour type


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_file(size: tuple[int, int], bits: int, colour: int, rows: bytes, more: bytes = b"") -> bytes:
    """A PNG of (W, H) `size` from its rows, each with its filter's byte before it; `more` are chunks before the pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + more + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def png16(values: NDArray[Any], significant: int | None = None) -> bytes:
    """A 16-bit PNG of grey (H, W) or of 1 to 4 channels (H, W, C), with an sBIT chunk if `significant` is given."""
    planes = values[..., None] if values.ndim == 2 else values
    height, width, channels = planes.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in planes)
    bits = b"" if significant is None else chunk(b"sBIT", bytes([significant] * channels))
    return png_file((width, height), 16, _COLOUR[channels], rows, bits)


def png_of_few_bits(values: NDArray[np.uint8], bits: int) -> bytes:
    """A grey PNG of 1, 2 or 4 bits a pixel."""
    rows = b"".join(b"\0" + _packed(row, bits) for row in values)
    return png_file((values.shape[1], values.shape[0]), bits, 0, rows)


def _packed(row: NDArray[np.uint8], bits: int) -> bytes:
    digits = "".join(f"{value:0{bits}b}" for value in row)
    digits += "0" * (-len(digits) % 8)
    return int(digits, 2).to_bytes(len(digits) // 8, "big")
