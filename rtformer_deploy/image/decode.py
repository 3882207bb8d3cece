"""Decodes image files to frames with Pillow. Every command and every dataset reads its images here.

A frame is upright RGB uint8 (H, W, 3): the EXIF orientation is applied, grey is repeated, alpha is dropped (the colour under it
stays), CMYK is converted (Adobe's inverted form too), samples of more than 8 bits become 8 bits (see `depth`). If a file holds
several pictures, the first is used. A file is decoded whole or refused; its size is checked before its pixels are decoded.
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
from PIL import Image, UnidentifiedImageError

from ..errors import ImageError, ImageTooLargeError
from ..files import IMAGE_BYTES, read_bytes
from ..types import Frame
from .depth import Note, samples_of, to_rgb
from .picture_formats import decoders_for, format_of, missing_decoder, readable_names

#: The largest picture that is decoded, in pixels (256 MiB as RGB, Pillow's own limit): a small file may claim to hold many more.
MAX_PIXELS = 2**28 // 3

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


def load_image(path: Path | str, bit_depth: int | None = None) -> Frame:
    """An image file -> its upright frame. `bit_depth` is the bits that samples of a 16- or 32-bit image use (None: as the file says).

    Raises ImageError if the file is missing, empty, not an image, damaged, cut off or too large.
    """
    return decode_image(read_bytes(Path(path), ImageError, "an image", IMAGE_BYTES), str(path), bit_depth)


def decode_image(data: bytes, name: str = "the image", bit_depth: int | None = None, *, max_pixels: int = MAX_PIXELS) -> Frame:
    """An image file's bytes -> its upright frame; `name` is what errors call it. Raises ImageError as `load_image`.

    A picture of more than `max_pixels` (at most MAX_PIXELS) raises ImageTooLargeError before its pixels are decoded.
    """
    frame, _ = decode_with_note(data, name, bit_depth, max_pixels)
    return frame


def decode_with_note(data: bytes, name: str, bit_depth: int | None, max_pixels: int = MAX_PIXELS) -> tuple[Frame, Note | None]:
    """As `decode_image`, and what a person should know about how the file was read, if anything."""
    with decoded(data, name, max_pixels) as image:
        samples = samples_of(image, data)
        note = None
        if samples.bits > 8 or image.mode in ("I", "F"):
            rgb, note = to_rgb(image, data, samples, name, bit_depth)
        else:
            # through RGBA, because Pillow warns about alpha when it converts a palette to RGB
            rgb = (image.convert("RGBA") if image.mode in ("P", "PA") else image).convert("RGB")
        return np.array(upright(rgb, image)), note


@contextlib.contextmanager
def decoded(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """An image file's bytes -> the stored image, in any mode. Damage that shows inside the block raises ImageError too."""
    try:
        with _open(data, name, min(max_pixels, MAX_PIXELS)) as image:
            with _quiet() if image.format == "TIFF" else contextlib.nullcontext():  # loading reads the metadata again
                image.load()
            yield image
    except UnidentifiedImageError as error:
        raise _unreadable(data, name) from error
    except _DAMAGE as error:
        raise ImageError(f"{name} is damaged or cut off: {error}.") from error


def upright(picture: Image.Image, image: Image.Image) -> Image.Image:
    """A picture turned as the EXIF orientation of `image`, the file that it was read from, says."""
    with _quiet():
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))  # no turn if the metadata cannot be read
    return picture if turn is None else picture.transpose(turn)


def _open(data: bytes, name: str, max_pixels: int) -> Image.Image:
    """The opened image. Its header is read and its size checked; its pixels are not decoded yet."""
    try:
        with _quiet():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=decoders_for(data))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise _too_large(name, max_pixels) from error
    if image.width * image.height > max_pixels:
        raise _too_large(name, max_pixels, f"{image.width}x{image.height}")
    if image.width < 1 or image.height < 1:
        raise ImageError(f"{name} holds no pixels: it is {image.width}x{image.height}.")
    return image


def _too_large(name: str, max_pixels: int, size: str = "larger") -> ImageTooLargeError:
    return ImageTooLargeError(
        f"{name} is {size}; at most {max_pixels:,} pixels are decoded, in case it is a decompression bomb.", "Make it smaller."
    )


def _unreadable(data: bytes, name: str) -> ImageError:
    """An error that says what the file is and what would help."""
    kind = format_of(data)
    needs = None if kind is None else missing_decoder(f".{kind.lower()}")
    if kind is not None and needs is not None:
        what = "a HEIC image, which needs the package pillow-heif" if kind == "HEIF" else "an AVIF image, which needs a newer Pillow"
        return ImageError(f"{name} is {what}.", f"Run: {needs}")
    what = f"{name} is not an image that can be read" + (f": it is {kind}." if kind and kind not in ("HEIF", "AVIF") else ".")
    return ImageError(what, f"These can: {readable_names()}.")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides warnings about metadata. One thread at a time, because warning filters belong to the process."""
    with _filtering, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield
