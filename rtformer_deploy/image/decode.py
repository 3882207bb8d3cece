"""Image files to frames, and arrays to PNG files; Pillow decodes.

JPEG, PNG, WebP, BMP and TIFF. A frame is upright RGB uint8 (H, W, 3): the EXIF orientation is applied, grey is repeated, alpha is
dropped (the colour under it stays), 16-bit samples keep their high byte, CMYK is converted (Adobe's inverted form too). Of
several pictures in a file the first is taken. A file is decoded whole or refused.
"""

from __future__ import annotations

import contextlib
import io
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ..errors import ImageError
from ..files import IMAGE_BYTES, read_bytes, write_atomic
from ..types import Frame

#: The largest picture that is decoded, in pixels (256 MiB as RGB, Pillow's own limit): a small file may claim to hold far more.
MAX_PIXELS = 2**28 // 3
#: What counts as an image in a folder; a file named by itself is tried whatever its suffix.
SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")

_ORIENTATION = 0x0112  # the EXIF tag; 1 is upright
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

#: What Pillow's decoders raise on damaged files.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, OverflowError, struct.error, zlib.error)

_filtering = threading.Lock()


def load_image(path: Path | str) -> Frame:
    """An image file -> its upright frame. Raises ImageError where it is missing, empty, no image, damaged, cut off or too large."""
    return decode_image(read_bytes(Path(path), ImageError, "an image", IMAGE_BYTES), str(path))


def decode_image(data: bytes, name: str = "the image") -> Frame:
    """An image file's bytes -> its upright frame; `name` is what errors call it. Raises ImageError as `load_image`."""
    try:
        with _open(data, name) as image:
            with _quiet() if image.format == "TIFF" else contextlib.nullcontext():  # reads its metadata again
                image.load()
            return np.array(_upright(_rgb(image, name), _orientation(image)))
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} is not an image that can be read.", f"These can: {', '.join(FORMATS)}.") from error
    except _DAMAGE as error:
        raise ImageError(f"{name} is damaged or cut off: {error}.") from error


def save_png(path: Path, array: NDArray[np.uint8]) -> None:
    """Writes labels (H, W) as 8-bit grey, the class id as the value, or a picture (H, W, 3) as RGB, whole or not at all.

    Raises OutputError where it cannot be written.
    """
    data = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(data, "PNG", compress_level=1 if array.ndim == 3 else 6)
    write_atomic(path, data.getvalue())


def _open(data: bytes, name: str) -> Image.Image:
    """The opened image, its header read and its size checked, its pixels not decoded yet."""
    try:
        with _quiet():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise _too_large(name) from error
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(name, f"{image.width}x{image.height}")
    if image.width < 1 or image.height < 1:
        raise ImageError(f"{name} holds no pixels: it is {image.width}x{image.height}.")
    return image


def _too_large(name: str, size: str = "larger") -> ImageError:
    return ImageError(
        f"{name} is {size}; at most {MAX_PIXELS:,} pixels are decoded, in case it is a decompression bomb.", "Make it smaller."
    )


def _rgb(image: Image.Image, name: str) -> Image.Image:
    """Any mode -> RGB."""
    if image.mode == "F":
        raise ImageError(f"{name} holds floating-point samples, whose range is not known.", "Convert it to 8 or 16 bits.")
    if image.mode == "I" or image.mode.startswith("I;16"):
        grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return Image.merge("RGB", [Image.fromarray(grey)] * 3)
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")  # straight to RGB, a palette that holds alpha is warned about
    return image.convert("RGB")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back warnings about metadata; pixels that cannot be decoded raise. One thread at a time: filters are the process's."""
    with _filtering, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1, upright, where there is none or the metadata cannot be read."""
    with _quiet():
        value: int = image.getexif().get(_ORIENTATION, 1)
    return value


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def images_in(folder: Path) -> list[Path]:
    """The images of a folder, by suffix, one level deep, sorted. Raises ImageError where there is none."""
    try:
        images = sorted(entry for entry in folder.iterdir() if entry.suffix.lower() in SUFFIXES and entry.is_file())
    except OSError as error:
        raise ImageError(f"Cannot read the folder {folder}: {error.strerror or error}.") from error
    if not images:
        raise ImageError(f"The folder {folder} holds no image.", f"Images are files that end in {', '.join(sorted(SUFFIXES))}.")
    return images
