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
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..errors import ImageError, ImageTooLargeError
from ..files import IMAGE_BYTES, read_bytes
from ..types import Frame
from .depth import Note, samples_of, to_rgb
from .picture_formats import decoders_for, format_of, missing_decoder, readable_names
from .png import has_late_metadata

#: The largest picture that is decoded, in pixels (256 MiB as RGB, Pillow's own limit): a small file may claim to hold many more.
MAX_PIXELS = 2**28 // 3

#: Gives the memory for a frame of (H, W), with any content, such as a runner's `frame`.
NewFrame = Callable[[tuple[int, int]], Frame]

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

#: Those that exchange height and width.
_QUARTER_TURNS = frozenset({turn for orientation, turn in _TURNS.items() if orientation >= 5})

#: What Pillow's decoders raise on damaged files.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, OverflowError, RuntimeError, struct.error, zlib.error)

_filtering = threading.Lock()


def new_frame(size: tuple[int, int]) -> Frame:
    """Memory of its own for a frame."""
    return np.empty((*size, 3), np.uint8)


def load_image(path: Path | str, bit_depth: int | None = None, *, frame: NewFrame = new_frame) -> Frame:
    """An image file -> its upright frame. `bit_depth` is the bits that samples of a 16- or 32-bit image use (None: as the file says).

    `frame` gives the memory that it is decoded into: with `runner.frame`, an engine on a GPU takes it without a copy.
    Raises ImageError if the file is missing, empty, not an image, damaged, cut off or too large.
    """
    return decode_image(read_bytes(Path(path), ImageError, "an image", IMAGE_BYTES), str(path), bit_depth, frame=frame)


def decode_image(
    data: bytes, name: str = "the image", bit_depth: int | None = None, *, max_pixels: int = MAX_PIXELS, frame: NewFrame = new_frame
) -> Frame:
    """An image file's bytes -> its upright frame; `name` is what errors call it, `frame` as in `load_image`. Raises ImageError as there.

    A picture of more than `max_pixels` (at most MAX_PIXELS) raises ImageTooLargeError before its pixels are decoded.
    """
    decoded_frame, _ = decode_with_note(data, name, bit_depth, max_pixels, frame)
    return decoded_frame


def decode_with_note(
    data: bytes, name: str, bit_depth: int | None, max_pixels: int = MAX_PIXELS, frame: NewFrame = new_frame
) -> tuple[Frame, Note | None]:
    """As `decode_image`, and what a person should know about how the file was read, if anything."""
    with decoded(data, name, max_pixels) as image:
        samples = samples_of(image, data)
        note = None
        if samples.bits > 8 or image.mode in ("I", "F"):
            rgb, note = to_rgb(image, data, samples, name, bit_depth)
        else:
            # through RGBA, because Pillow warns about alpha when it converts a palette to RGB
            rgb = (image.convert("RGBA") if image.mode in ("P", "PA") else image).convert("RGB")
        picture = upright(rgb, image)
    pixels = frame((picture.height, picture.width))
    pixels[...] = np.asarray(picture)
    return pixels, note


def size_of(data: bytes, name: str) -> tuple[int, int]:
    """An image file's bytes -> (H, W) of its upright frame, from the header alone. Raises ImageError as `load_image`, but for damage in
    the pixels."""
    try:
        with _open(data, name, MAX_PIXELS) as image:
            turn = _turn(image, whole=image.format != "PNG" or has_late_metadata(data))
            lies = turn in _QUARTER_TURNS and image.format != "TIFF"  # Pillow gives a TIFF's size as it will be once it is turned
            return (image.width, image.height) if lies else (image.height, image.width)
    except UnidentifiedImageError as error:
        raise _unreadable(data, name) from error
    except _DAMAGE as error:
        raise ImageError(f"{name} is damaged or cut off: {error}.") from error


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
    turn = _turn(image)
    return picture if turn is None else picture.transpose(turn)


def _turn(image: Image.Image, whole: bool = True) -> Image.Transpose | None:
    """What an image's EXIF orientation asks for; None if nothing, or if its metadata cannot be read.

    Pillow decodes a PNG to look for metadata behind its pixels, which it does not if `whole` is False.
    """
    with _quiet():
        exif = image.getexif() if whole else Image.Image.getexif(image)
        return _TURNS.get(exif.get(_ORIENTATION, 1))


def _open(data: bytes, name: str, max_pixels: int) -> Image.Image:
    """The opened image. Its header is read and its size checked; its pixels are not decoded yet."""
    try:
        with _quiet():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=decoders_for(data))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise _too_large(name, max_pixels, _stored_size(data)) from error
    if image.width * image.height > max_pixels:
        raise _too_large(name, max_pixels, image.size)
    if image.width < 1 or image.height < 1:
        raise ImageError(f"{name} holds no pixels: it is {image.width}x{image.height}.")
    return image


def _stored_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a picture that Pillow refuses for its size, from its header alone; None if no decoder reads the header."""
    for format_name in decoders_for(data):
        factory, accepts = Image.OPEN[format_name]
        if accepts is not None and accepts(data[:16]) is not True:
            continue
        with _quiet(), contextlib.suppress(*_DAMAGE, Image.DecompressionBombError), factory(io.BytesIO(data), "") as image:
            return image.size
    return None


def _too_large(name: str, max_pixels: int, size: tuple[int, int] | None) -> ImageTooLargeError:
    is_what = "larger" if size is None else f"{size[0]}x{size[1]}, {size[0] * size[1]:,} pixels"
    return ImageTooLargeError(
        f"{name} is {is_what}; at most {max_pixels:,} pixels are decoded, in case it is a decompression bomb.", "Make it smaller."
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
