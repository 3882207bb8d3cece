"""Reduces samples of more than 8 bits to 8 bits, by the range that the file states or the user gives.

An integer sample of `depth` bits keeps its highest 8. The depth is that of --bit-depth, else the one that the file states:
PNG's sBIT chunk, TIFF's SMaxSampleValue, MaxSampleValue or BitsPerSample. A 16-bit file that states none is taken as 16 bits. A 32-bit
integer file that states none is taken as the smallest of 8, 16 and 32 bits that holds its largest sample, because no camera fills
32 bits. Floating-point samples need a range: TIFF's SMinSampleValue and SMaxSampleValue, or --bit-depth N for 0 to 2^N - 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import ImageError
from . import png

_BITS_PER_SAMPLE, _MAX_SAMPLE, _SAMPLE_FORMAT, _SMIN, _SMAX = 258, 281, 339, 340, 341
_USUAL = (10, 12, 14)  # bits of a camera's samples in a 16-bit file
_UNKNOWN_RANGE = "Give --bit-depth N (the samples go from 0 to 2^N - 1), or convert it to 8 or 16 bits."


@dataclass(frozen=True, slots=True)
class Note:
    """What a person should know about how an image was read; `key` is the same for images that were read in the same way."""

    key: str
    text: str


@dataclass(frozen=True, slots=True)
class Samples:
    """How a file holds its samples: the bits of each, and what the file states about their values (None: nothing)."""

    bits: int
    stated: int | None = None
    low: float | None = None
    high: float | None = None
    unsigned: bool = True


def samples_of(image: Image.Image, data: bytes) -> Samples:
    """An opened image and its file's bytes -> how it holds its samples; 8 bits for every format that cannot hold more."""
    if image.format == "PNG":
        bits, significant = png.sample_bits(data)
        return Samples(bits, significant)
    if image.format != "TIFF":
        return Samples(8)
    low, high = _number(image, _SMIN), _number(image, _SMAX)
    largest = high if high is not None else _number(image, _MAX_SAMPLE)
    bits = int(_number(image, _BITS_PER_SAMPLE) or 1)
    stated = int(largest - min(low or 0, 0)).bit_length() if largest is not None and 0 < largest < 2**63 else None
    return Samples(bits, stated or None, low, high, unsigned=_number(image, _SAMPLE_FORMAT) in (None, 1))


def to_rgb(image: Image.Image, data: bytes, samples: Samples, name: str, asked: int | None) -> tuple[Image.Image, Note | None]:
    """An image whose samples have more than 8 bits -> RGB of 8 bits. Raises ImageError for a range that is unknown or does not fit."""
    if image.mode == "F":
        return _grey(_scaled(np.asarray(image), samples, name, asked)), None
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = _from_zero(image, samples, name)
        depth, note = _depth(int(values.max()), samples, name, asked)
        return _grey(_reduced(values, depth)), note
    wanted = asked or samples.stated
    if wanted in (None, samples.bits):
        rgb = image.convert("RGB")  # Pillow keeps the high byte of 16 bits
        _, note = _depth(256 * (int(np.asarray(rgb).max()) + 1) - 1, samples, name, wanted)
        return rgb, note
    colours = deep_colours(image, data, name)
    depth, note = _depth(int(colours.max()), samples, name, asked)
    return Image.fromarray(_reduced(colours, depth)), note


def deep_colours(image: Image.Image, data: bytes, name: str) -> NDArray[np.uint16]:
    """A decoded colour image with 16-bit samples and its file's bytes -> its samples (H, W, 3), RGB.

    Pillow keeps the high bytes only, so OpenCV reads the samples. They are checked against Pillow's bytes.
    """
    import cv2

    try:
        values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        values = None
    high = np.asarray(image.convert("RGB"))
    if values is not None and values.dtype == np.uint16 and values.ndim == 3 and values.shape[:2] == high.shape[:2]:
        rgb = np.ascontiguousarray(values[..., 2::-1]).astype(np.uint16, copy=False)  # stored as BGR or BGRA
        if np.array_equal(rgb >> 8, high):
            return rgb
    raise ImageError(f"{name} holds {image.mode} samples of 16 bits, of which only the high bytes can be read.", "Convert it to 8 bits.")


def _depth(largest: int, samples: Samples, name: str, asked: int | None) -> tuple[int, Note | None]:
    """The bits that the samples use, and a note if neither the file nor the user stated them."""
    if asked is not None:
        if asked > samples.bits:
            raise ImageError(f"{name} holds samples of {samples.bits} bits, fewer than --bit-depth {asked}.")
        if largest >> asked:
            raise ImageError(
                f"{name} holds a sample of {largest}, more than {asked} bits hold ({2**asked - 1}).", "Give another --bit-depth, or none."
            )
        return asked, None
    if samples.stated is not None and samples.stated <= samples.bits and not largest >> samples.stated:
        return samples.stated, None
    if samples.bits > 16:
        depth = next(bits for bits in (8, 16, 32) if not largest >> bits)
        message = f"holds 32-bit integers and does not say their range: read as {depth}-bit samples, the largest is {largest}."
        return depth, Note(f"32 {depth}", f"{message} Say otherwise with --bit-depth N.")
    if samples.stated is not None or samples.bits < 16:
        return samples.bits, None  # a sample is larger than stated: PNG wants samples to use the full range, whatever sBIT says
    fits = next((bits for bits in _USUAL if not largest >> bits), None)
    hint = "" if fits is None else f" None is larger than {largest}: if they are {fits}-bit samples, give --bit-depth {fits}."
    return 16, Note(f"16 {fits}", f"holds 16-bit samples and does not say how many of their bits are used: read as 16.{hint}")


def _from_zero(image: Image.Image, samples: Samples, name: str) -> NDArray[np.integer]:
    """Grey integer samples (H, W) that begin at 0."""
    values: NDArray[np.integer] = np.asarray(image)
    if samples.bits == 32 and samples.unsigned and values.dtype == np.int32:
        values = values.view(np.uint32)  # Pillow has no mode for them
    if samples.low is not None and samples.low < 0:
        values = values.astype(np.int64) - int(samples.low)
    if values.dtype.kind == "i" and int(values.min()) < 0:
        raise ImageError(f"{name} holds samples below 0, whose range is not known.", "Convert it to 8 or 16 bits.")
    return values


def _reduced(values: NDArray[np.integer], depth: int) -> NDArray[np.uint8]:
    """Samples from 0 to 2^depth - 1 -> their highest 8 bits; fewer bits are stretched to 0 to 255."""
    if depth >= 8:
        high: NDArray[np.integer] = values >> (depth - 8)
        return high.astype(np.uint8)
    stretched: NDArray[np.uint16] = values.astype(np.uint16) * 255 // (2**depth - 1)
    return stretched.astype(np.uint8)


def _scaled(values: NDArray[np.float32], samples: Samples, name: str, asked: int | None) -> NDArray[np.uint8]:
    """Floating-point samples -> 0 to 255, linearly from a stated or asked range, rounded half up."""
    low, high = (0.0, 2.0**asked - 1) if asked is not None else (samples.low or 0.0, samples.high)
    if high is None or not high > low:
        raise ImageError(f"{name} holds floating-point samples, whose range is not known.", _UNKNOWN_RANGE)
    least, most = float(values.min()), float(values.max())
    if not (low <= least and most <= high):
        raise ImageError(f"{name} holds samples from {least:g} to {most:g}, outside their range of {low:g} to {high:g}.", _UNKNOWN_RANGE)
    return np.asarray((values.astype(np.float64) - low) * (255 / (high - low)) + 0.5).astype(np.uint8)


def _grey(values: NDArray[np.uint8]) -> Image.Image:
    return Image.merge("RGB", [Image.fromarray(values)] * 3)


def _number(image: Image.Image, tag: int) -> float | None:
    """A TIFF tag's number; the largest if each channel has one; None if there is none or it is not a number."""
    tags = getattr(image, "tag_v2", {})
    value = tags.get(tag)
    numbers = value if isinstance(value, tuple) else (value,)
    try:
        floats = [float(number) for number in numbers if number is not None]
    except (TypeError, ValueError):
        return None
    return max(floats) if floats else None
