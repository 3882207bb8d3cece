"""Reads label files as label maps. Every label is read here.

A pixel says its class by its value or by its colour. Values: grey of 1, 2, 4, 8 or 16 bits, a palette's indices, or three equal
channels. Colours: RGB in which every pixel has exactly one of the dataset's colours. A label map is turned upright, as an image is. A
file that could be read in two ways, or not exactly, is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import DatasetError, ImageError, about
from ..files import read_bytes
from ..formats.recipe import Labels
from ..types import LabelMap
from .decode import decoded, upright
from .depth import Samples, deep_colours, samples_of
from .label_colours import BLACK, Colour, Colours, ColourTable, packed

#: What a label's pixels are; None: each file decides.
LabelPixels = Literal["ids", "colours"] | None
Ids = NDArray[np.uint8]  # (H, W) pixel values

_LOSSLESS = frozenset({"PNG", "BMP", "TIFF"})
_LOSSY_IN_TIFF = frozenset({"jpeg", "tiff_jpeg", "webp"})
_SAVE_AS = "Save the class ids as an 8-bit grey PNG."
_SAY_WHICH = 'Say which it is in the dataset file: label_pixels = "ids" or label_pixels = "colours".'
_TELLING = 3  # if this many of a palette's colours are the dataset's, it is not by chance


@dataclass(frozen=True, slots=True)
class LabelMeaning:
    """What a dataset's label pixels mean. `lookup` maps a pixel value (0 to 255) to a class id, to the ignored id, or to -1: a value that
    should not be there. `mapped`: the dataset file maps values itself. `ignored_colour` (None: black) is ignored, unless a class has it.
    """

    labels: Labels
    lookup: NDArray[np.int16]
    mapped: bool = False
    pixels: LabelPixels = None
    ignored_colour: Colour | None = None

    @property
    def colours(self) -> ColourTable:
        """What each colour means."""
        return ColourTable.of(self.labels.palette, self.ignored_colour or BLACK, self.labels.ignore_index)

    def name(self, index: int) -> str:
        """A class id -> its name, or "ignored"."""
        return self.labels.names[index] if 0 <= index < len(self.labels.names) else "ignored"


def read_label(path: Path, meaning: LabelMeaning) -> LabelMap:
    """A label file -> its label map (H, W) of class ids and the ignored id, upright. Raises DatasetError, which says what would help."""
    try:
        data = read_bytes(path, ImageError, "a label map")
        with decoded(data, str(path)) as image:
            _refuse_lossy(image, path)
            stored = _shown(image, data, path) if meaning.pixels == "colours" else _stored(image, data, path)
            pixels, palette = np.array(upright(Image.fromarray(stored), image)), _palette(image)
    except ImageError as error:
        raise DatasetError(about(path, "cannot be read as a label map", error), error.hint) from error
    if pixels.ndim == 3:
        return _from_rgb(pixels, meaning, path)
    if palette is not None and meaning.pixels is None and not meaning.mapped:
        _refuse_shuffled(pixels, palette, meaning, path)
    return _by_value(pixels, meaning, path)


def values_in(path: Path, meaning: LabelMeaning) -> list[int] | list[Colour]:
    """The distinct pixel values of a label file as it holds them, or its distinct colours, sorted. Raises as `read_label`."""
    data = read_bytes(path, ImageError, "a label map")
    with decoded(data, str(path)) as image:
        pixels = _shown(image, data, path) if meaning.pixels == "colours" else _stored(image, data, path)
    if pixels.ndim == 3 and (meaning.pixels == "colours" or (pixels != pixels[..., :1]).any()):
        return [(int(red), int(green), int(blue)) for red, green, blue in np.unique(pixels.reshape(-1, 3), axis=0)]
    return [int(value) for value in np.unique(pixels if pixels.ndim == 2 else pixels[..., 0])]


def _refuse_lossy(image: Image.Image, path: Path) -> None:
    lossy_tiff = image.format == "TIFF" and image.info.get("compression") in _LOSSY_IN_TIFF
    if image.format not in _LOSSLESS or lossy_tiff:
        kind = f"TIFF with {image.info['compression']} inside" if lossy_tiff else {"MPO": "JPEG"}.get(str(image.format), image.format)
        raise DatasetError(f"{path} cannot be read as a label map: its format is {kind}, whose compression changes class ids.", _SAVE_AS)


def _stored(image: Image.Image, data: bytes, path: Path) -> NDArray[np.uint8]:
    """The pixels as the file holds them: values (H, W), or colours (H, W, 3)."""
    mode, samples = image.mode, samples_of(image, data)
    _refuse_transparent(image, path)
    if mode in ("1", "P"):
        return np.asarray(image).astype(np.uint8)
    if mode == "L":
        return np.asarray(image) // _stretch(samples)
    if mode == "I" or mode.startswith("I;16"):
        return _under_256(np.asarray(image), path)
    if mode in ("PA", "LA"):
        return np.asarray(image.getchannel(0))
    if mode not in ("RGB", "RGBA"):
        raise DatasetError(f"{path} is no label map: its pixels are of the mode {mode}.", _SAVE_AS)
    if samples.bits > 8:
        return _shallow(deep_colours(image, data, str(path)), path)
    return np.asarray(image)[..., :3]


def _shown(image: Image.Image, data: bytes, path: Path) -> Colours:
    """The colours (H, W, 3) that a viewer shows."""
    if image.mode in ("1", "L", "P", "PA", "LA"):
        _refuse_transparent(image, path)
        return np.asarray(image.convert("RGBA"))[..., :3]
    stored = _stored(image, data, path)
    return stored if stored.ndim == 3 else np.repeat(stored[..., None], 3, axis=2)


def _stretch(samples: Samples) -> int:
    """The factor by which Pillow multiplied grey samples of 2 or 4 bits so that they reach 255. Class ids need the stored values."""
    return 255 // (2**samples.bits - 1) if samples.bits < 8 else 1


def _under_256(values: NDArray[np.integer], path: Path) -> Ids:
    odd = values[(values < 0) | (values > 255)]
    if odd.size:
        raise DatasetError(
            f"{path} is no label map: it holds {_some(odd)}, and class ids lie between 0 and 255.",
            "Files of instances or of depth look like this; the dataset file should name those of class ids.",
        )
    return values.astype(np.uint8)


def _shallow(colours: NDArray[np.uint16], path: Path) -> Colours:
    """Colours of 16 bits -> 8 bits: ids below 256 stay as they are; of colours with two equal bytes, one byte stays."""
    if colours.max() <= 255:
        return colours.astype(np.uint8)
    if np.array_equal(colours >> 8, colours & 255):
        return (colours >> 8).astype(np.uint8)
    raise DatasetError(f"{path} is no label map: its colours have 16 bits, of which none can be left out.", _SAVE_AS)


def _refuse_transparent(image: Image.Image, path: Path) -> None:
    if "A" in image.getbands() and image.mode != "LAB" and np.asarray(image.getchannel("A")).min() < 255:
        raise DatasetError(f"{path} is no label map: some of its pixels are transparent, and no class says what that means.", _SAVE_AS)


def _palette(image: Image.Image) -> Colours | None:
    """The colours (256, 3) of a palette's indices; None if the image has no palette."""
    if image.mode not in ("P", "PA"):
        return None
    stored = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)[:256]
    return np.concatenate([stored, np.zeros((256 - len(stored), 3), np.uint8)])


def _by_value(values: Ids, meaning: LabelMeaning, path: Path) -> LabelMap:
    ids = meaning.lookup[values]
    if ids.min() < 0:
        raise DatasetError(
            f"{path} holds {_some(values[ids < 0])}, which is neither one of the {len(meaning.labels.names)} classes nor"
            f" the ignored id {meaning.labels.ignore_index}.",
            "Is it another dataset's label, or does the dataset file need a [label_map]?",
        )
    return ids.astype(np.uint8)


def _from_rgb(colours: Colours, meaning: LabelMeaning, path: Path) -> LabelMap:
    """Three channels: values if they are equal everywhere, else colours."""
    values = np.ascontiguousarray(colours[..., 0])
    equal = bool((colours == values[..., None]).all())
    by_value = meaning.pixels == "ids" or meaning.mapped
    if by_value and not equal:
        what = "a [label_map]" if meaning.mapped else 'label_pixels = "ids"'
        raise DatasetError(f"{path} is no label map: it has colours, and the dataset file has {what}: one value a pixel.", _SAVE_AS)
    if by_value:
        return _by_value(values, meaning, path)
    if meaning.pixels == "colours" or not equal:
        return _by_colour(colours, meaning, path)
    return _from_grey(values, colours, meaning, path)


def _from_grey(values: Ids, colours: Colours, meaning: LabelMeaning, path: Path) -> LabelMap:
    """Three equal channels: read as values, unless only colours fit. Raises DatasetError if both fit and differ."""
    ids, classes = meaning.lookup[values], meaning.colours.classes_of(colours)
    if ids.min() < 0 <= classes.min():
        return classes.astype(np.uint8)
    telling = meaning.ignored_colour is not None or bool((classes != meaning.labels.ignore_index).any())  # black alone says little
    if min(ids.min(), classes.min()) >= 0 and telling and not np.array_equal(ids, classes):
        y, x = np.argwhere(ids != classes)[0]
        one, other = meaning.name(int(ids[y, x])), meaning.name(int(classes[y, x]))
        value = int(values[y, x])
        raise DatasetError(
            f"{path} can be read in two ways: the pixels of ({value}, {value}, {value}) are {one} by value and {other} by colour.",
            _SAY_WHICH,
        )
    return _by_value(values, meaning, path)


def _by_colour(colours: Colours, meaning: LabelMeaning, path: Path) -> LabelMap:
    classes = meaning.colours.classes_of(colours)
    if classes.min() >= 0:
        return classes.astype(np.uint8)
    y, x = np.argwhere(classes < 0)[0]
    colour = tuple(map(int, colours[y, x]))
    shared = [name for name, each in zip(meaning.labels.names, meaning.labels.palette, strict=True) if each == colour]
    if shared:
        raise DatasetError(f"{path} holds the colour {colour}, which the classes {' and '.join(shared)} share.", _SAVE_AS)
    unknown = len(np.unique(packed(colours)[classes < 0]))
    more = f" (and {unknown - 1} more)" if unknown > 1 else ""
    raise DatasetError(
        f"{path} holds the colour {colour}{more}, which none of the {len(meaning.labels.names)} classes has.",
        "If it is to be ignored, say so in the dataset file: ignored_colour = [R, G, B]; if it is a class's, correct the palette there.",
    )


def _refuse_shuffled(indices: Ids, palette: Colours, meaning: LabelMeaning, path: Path) -> None:
    """Raises DatasetError if a palette has the dataset's colours in another order, as image optimisers write it."""
    used = np.unique(indices)
    classes = meaning.colours.classes_of(palette[used])
    other = meaning.lookup[used] != classes
    if len(used) >= _TELLING and classes.min() >= 0 and other.any():
        index, colour = int(used[other][0]), meaning.name(int(classes[other][0]))
        raise DatasetError(
            f"{path} can be read in two ways: the colours of its palette are the dataset's, but index {index} has the colour of {colour}.",
            _SAY_WHICH,
        )


def _some(values: NDArray[np.integer]) -> str:
    distinct = [int(value) for value in np.unique(values)]
    return ", ".join(map(str, distinct[:5])) + (f" and {len(distinct) - 5} more" if len(distinct) > 5 else "")
