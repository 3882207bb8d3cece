"""PNG files: writes our pictures and recognises them, and reads what a file says about its samples."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from ..files import write_atomic

#: The text chunk in every PNG that is written here, so that results are not taken for photographs in a folder.
SOFTWARE = "rtformer-deploy"

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = b"\0\0\0\0IEND\xaeB`\x82"
#: Our text chunk is in the first bytes: it is before the pixels, and nothing long is before it.
HEAD_BYTES = 4096
_METADATA = frozenset({b"eXIf", b"iTXt", b"tEXt", b"zTXt"})
_CHANNELS = {0: 1, 2: 3, 4: 1, 6: 3}  # colour type -> channels without alpha


def save_png(path: Path, array: NDArray[np.uint8], *, mark: bool = True, palette: Sequence[Sequence[int]] | None = None) -> None:
    """Writes labels (H, W) as 8-bit grey, the class id as the value, or a picture (H, W, 3) as RGB, whole or not at all.

    With a `palette`, one RGB triple for each class, labels show in these colours; their values stay the class ids.

    A text chunk says that this program wrote it, and folders of images are read without such files; `mark=False` leaves it out, for
    a picture that is itself an input. Raises OutputError if it cannot be written.
    """
    write_atomic(path, encode_png(array, mark=mark, palette=palette))


def encode_png(
    array: NDArray[np.uint8], *, mark: bool = True, palette: Sequence[Sequence[int]] | None = None, level: int | None = None
) -> bytes:
    """The bytes of the file that `save_png` writes. `level` is zlib's, 1 (fast) to 9 (small); None: 1 for pictures, 6 for labels."""
    text = PngImagePlugin.PngInfo()
    if mark:
        text.add_text("Software", SOFTWARE)
    data = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(array))
    if palette is not None:
        colours = np.zeros((256, 3), np.uint8)  # all 256, or Pillow would write fewer than 8 bits a pixel
        colours[: len(palette)] = palette
        picture.putpalette(colours.tobytes())
    picture.save(data, "PNG", compress_level=level or (1 if array.ndim == 3 else 6), pnginfo=text)
    return data.getvalue()


def is_ours(path: Path) -> bool:
    """Whether a file is a PNG that `save_png` marked; False for one that cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError:
        return False
    return is_marked(head)


def is_marked(head: bytes) -> bool:
    """Whether a file's first HEAD_BYTES are those of a PNG that `save_png` marked."""
    wanted = b"Software\0" + SOFTWARE.encode()
    return head.startswith(_SIGNATURE) and any(name == b"tEXt" and body.startswith(wanted) for name, body in _chunks(head))


def ends_as_png(last: bytes) -> bool:
    """Whether a file's last bytes are those of a PNG that is not cut short."""
    return last.endswith(_END)


def sample_bits(data: bytes) -> tuple[int, int | None]:
    """A PNG's bytes -> the bits that a sample has in the file, and how many of them are significant (sBIT; None if it does not say)."""
    bits, colour, significant = 8, 0, None
    for name, body in _chunks(data):
        if name == b"IHDR" and len(body) >= 10:
            bits, colour = body[8], body[9]
        elif name == b"sBIT" and body:
            significant = max(body[: _CHANNELS.get(colour, 1)])
    return bits, significant


def has_late_metadata(data: bytes) -> bool:
    """Whether a PNG's bytes hold metadata behind the pixels, where it may be too, such as an EXIF orientation."""
    names = [name for name, _ in _chunks(data, pixels=True)]
    pixels = names.index(b"IDAT") if b"IDAT" in names else len(names)
    return not _METADATA.isdisjoint(names[pixels:])


def _chunks(data: bytes, pixels: bool = False) -> Iterator[tuple[bytes, bytes]]:
    """Name and body of the chunks before the pixels, or with `pixels` of all; a body that is cut off is shorter."""
    start = len(_SIGNATURE)
    while start + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, start)
        if name == b"IEND" or (name == b"IDAT" and not pixels):
            return
        yield name, data[start + 8 : start + 8 + length]
        start += length + 12
