"""Label files of every pixel format become the ids that were drawn, or one message that says what would help."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from odd_pngs import png16, png_of_few_bits
from PIL import Image

from rtformer_deploy.errors import DatasetError
from rtformer_deploy.formats.recipe import Labels
from rtformer_deploy.image.labels import LabelMeaning, read_label

PALETTE = ((90, 140, 220), (90, 80, 80), (220, 200, 40))
IGNORE = 9
IDS = np.array([[0, 1, 2, IGNORE], [2, 2, 0, 1]], np.uint8)
BINARY = np.array([[0, 1, 1], [0, 0, 1]], np.uint8)


def meaning(**changes: Any) -> LabelMeaning:
    """Three classes and an ignored id."""
    lookup = np.full(256, -1, np.int16)
    lookup[[0, 1, 2, IGNORE]] = [0, 1, 2, IGNORE]
    return replace(LabelMeaning(Labels(("sky", "road", "pole"), PALETTE, IGNORE), lookup), **changes)


def coloured(ids: NDArray[np.uint8], palette: tuple[tuple[int, int, int], ...] = PALETTE) -> NDArray[np.uint8]:
    """Ids as their classes' colours; the ignored id is black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = palette
    return table[ids]


def with_palette(ids: NDArray[np.uint8], colours: NDArray[np.uint8]) -> Image.Image:
    image = Image.frombytes("P", ids.shape[::-1], ids.tobytes())
    image.putpalette(colours.ravel().tolist())
    return image


def save(tmp_path: Path, image: Image.Image, kind: str = "PNG", **options: Any) -> Path:
    image.save(tmp_path / "x.png", kind, **options)
    return tmp_path / "x.png"


def grey16(ids: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(ids.astype(np.uint16))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
@pytest.mark.parametrize(
    "make",
    [
        Image.fromarray,
        lambda ids: Image.merge("RGB", [Image.fromarray(ids)] * 3),
        lambda ids: with_palette(ids, coloured(np.arange(256, dtype=np.uint8))),
        lambda ids: Image.fromarray(coloured(ids)),
    ],
    ids=["grey", "three equal channels", "palette", "colours"],
)
def test_formats_and_modes(tmp_path: Path, make: Callable[[NDArray[np.uint8]], Image.Image], kind: str) -> None:
    assert read_label(save(tmp_path, make(IDS), kind), meaning()).tolist() == IDS.tolist()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_a_mask_of_1_bit(tmp_path: Path, kind: str) -> None:
    label = read_label(save(tmp_path, Image.fromarray(BINARY.astype(bool)), kind), meaning())
    assert label.dtype == np.uint8
    assert label.tolist() == BINARY.tolist()


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_of_a_few_bits_is_not_stretched(tmp_path: Path, bits: int) -> None:
    ids = np.minimum(IDS, 2)
    path = tmp_path / "x.png"
    path.write_bytes(png_of_few_bits(ids, bits))
    assert read_label(path, meaning()).tolist() == ids.tolist()


@pytest.mark.parametrize("bits", [2, 4])
def test_a_palette_of_a_few_bits(tmp_path: Path, bits: int) -> None:
    image = with_palette(np.minimum(IDS, 2), coloured(np.arange(4, dtype=np.uint8)))
    assert read_label(save(tmp_path, image, bits=bits), meaning()).tolist() == np.minimum(IDS, 2).tolist()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_ids_under_256(tmp_path: Path, kind: str) -> None:
    assert read_label(save(tmp_path, grey16(IDS), kind), meaning()).tolist() == IDS.tolist()


def test_32_bit_ids_under_256(tmp_path: Path) -> None:
    assert read_label(save(tmp_path, Image.fromarray(IDS.astype(np.int32)), "TIFF"), meaning()).tolist() == IDS.tolist()


@pytest.mark.parametrize("values", [np.repeat(IDS[..., None], 3, axis=2), coloured(IDS).astype(np.uint16) * 257])
def test_three_channels_of_16_bits(tmp_path: Path, values: NDArray[Any]) -> None:
    (tmp_path / "x.png").write_bytes(png16(values))
    assert read_label(tmp_path / "x.png", meaning()).tolist() == IDS.tolist()


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_counts_only_if_something_is_transparent(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(IDS).convert(mode)
    assert read_label(save(tmp_path, image), meaning()).tolist() == IDS.tolist()
    image.putalpha(Image.fromarray(np.where(IDS == 2, 0, 255).astype(np.uint8)))
    with pytest.raises(DatasetError, match=r"transparent[\s\S]*8-bit grey PNG"):
        read_label(save(tmp_path, image), meaning())


def test_a_label_is_turned_as_a_viewer_shows_it(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    assert read_label(save(tmp_path, Image.fromarray(IDS[::-1, ::-1].copy()), exif=exif), meaning()).tolist() == IDS.tolist()


@pytest.mark.parametrize(("kind", "named"), [("JPEG", "JPEG"), ("WEBP", "WEBP"), ("AVIF", "AVIF"), ("MPO", "JPEG")])
def test_lossy_formats_are_refused_whatever_the_name(tmp_path: Path, kind: str, named: str) -> None:
    with pytest.raises(DatasetError, match=rf"its format is {named}, whose compression changes class ids[\s\S]*grey PNG"):
        read_label(save(tmp_path, Image.fromarray(IDS).convert("RGB"), kind), meaning())


def test_a_tiff_with_jpeg_inside_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, Image.fromarray(np.tile(IDS, (8, 8))), "TIFF", compression="jpeg")
    with pytest.raises(DatasetError, match=r"TIFF with jpeg inside.*changes class ids"):
        read_label(path, meaning())


def test_ids_over_255_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"holds 26000, 26001, and class ids lie between 0 and 255[\s\S]*instances"):
        read_label(save(tmp_path, Image.fromarray(np.array([[0, 26000, 26001]], np.uint16))), meaning())


def test_values_that_are_no_class_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"holds 37, 200, which is neither[\s\S]*label_map"):
        read_label(save(tmp_path, Image.fromarray(np.array([[0, 37, 200]], np.uint8))), meaning())


def test_floating_point_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"mode F[\s\S]*grey PNG"):
        read_label(save(tmp_path, Image.fromarray(IDS.astype(np.float32)), "TIFF"), meaning())


def test_an_unknown_colour_is_named(tmp_path: Path) -> None:
    colours = coloured(IDS)
    colours[1, 1] = 90, 140, 221
    with pytest.raises(DatasetError, match=r"the colour \(90, 140, 221\), which none of the 3 classes has[\s\S]*ignored_colour"):
        read_label(save(tmp_path, Image.fromarray(colours)), meaning())


def test_an_ignored_colour_of_ones_own(tmp_path: Path) -> None:
    colours = coloured(IDS)
    colours[IDS == IGNORE] = 224, 224, 192
    assert read_label(save(tmp_path, Image.fromarray(colours)), meaning(ignored_colour=(224, 224, 192))).tolist() == IDS.tolist()


def test_black_is_a_class_if_the_palette_says_so(tmp_path: Path) -> None:
    palette = ((90, 140, 220), (0, 0, 0), (220, 200, 40))
    labels = Labels(("sky", "road", "pole"), palette, IGNORE)
    ids = np.minimum(IDS, 2)
    assert read_label(save(tmp_path, Image.fromarray(coloured(ids, palette))), meaning(labels=labels)).tolist() == ids.tolist()


def test_a_colour_that_two_classes_share_is_refused(tmp_path: Path) -> None:
    labels = Labels(("sky", "road", "pole"), (PALETTE[0], PALETTE[1], PALETTE[0]), IGNORE)
    with pytest.raises(DatasetError, match="the classes sky and pole share"):
        read_label(save(tmp_path, Image.fromarray(coloured(IDS))), meaning(labels=labels))


BLACK_AND_WHITE = Labels(("white", "black"), ((255, 255, 255), (0, 0, 0)), IGNORE)


def test_three_equal_channels_that_are_ids_and_colours_ask_which(tmp_path: Path) -> None:
    """All black: the first class by value, the second by colour."""
    path = save(tmp_path, Image.new("RGB", (2, 1)))
    with pytest.raises(DatasetError, match=r"are white by value and black by colour[\s\S]*label_pixels"):
        read_label(path, meaning(labels=BLACK_AND_WHITE))
    assert read_label(path, meaning(labels=BLACK_AND_WHITE, pixels="ids")).tolist() == [[0, 0]]
    assert read_label(path, meaning(labels=BLACK_AND_WHITE, pixels="colours")).tolist() == [[1, 1]]
    assert read_label(path, meaning(labels=BLACK_AND_WHITE, mapped=True)).tolist() == [[0, 0]]  # a [label_map] is about values


def test_grey_colours_are_colours_where_they_are_no_ids(tmp_path: Path) -> None:
    labels = Labels(("a", "b", "c"), ((128, 128, 128), (64, 64, 64), (0, 0, 200)), IGNORE)
    assert read_label(save(tmp_path, Image.merge("RGB", [Image.fromarray(np.array([[128, 64]], np.uint8))] * 3)), meaning(labels=labels))[
        0
    ].tolist() == [0, 1]


@pytest.mark.parametrize("make", [lambda ids: Image.fromarray(ids.astype(bool)), lambda ids: Image.fromarray(ids * 255)])
def test_colours_may_have_become_grey(tmp_path: Path, make: Callable[[NDArray[np.uint8]], Image.Image]) -> None:
    """What an optimiser makes of a picture that is black and white."""
    path = save(tmp_path, make(BINARY))
    assert read_label(path, meaning(labels=BLACK_AND_WHITE, pixels="colours")).tolist() == (1 - BINARY).tolist()


def test_a_palette_whose_colours_are_the_datasets_in_another_order_asks_which(tmp_path: Path) -> None:
    """An optimiser turns colours into a palette in the order in which it meets them."""
    order = np.array([2, 0, 1, 3], np.uint8)  # index -> class
    indices = np.argsort(order).astype(np.uint8)[np.minimum(IDS, 3)]
    path = save(tmp_path, with_palette(indices, coloured(order)))
    with pytest.raises(DatasetError, match=r"index 0 has the colour of pole[\s\S]*label_pixels"):
        read_label(path, meaning())
    assert read_label(path, meaning(pixels="colours")).tolist() == IDS.tolist()


def test_colours_do_not_go_with_a_label_map(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"it has colours, and the dataset file has a \[label_map\]"):
        read_label(save(tmp_path, Image.fromarray(coloured(IDS))), meaning(mapped=True))


def test_a_file_that_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    with pytest.raises(DatasetError, match=r"cannot be read as a label map: .* it is EPS"):
        read_label(tmp_path / "x.png", meaning())


def test_colours_of_16_bits_that_do_not_fit_into_8(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(png16(np.full((1, 1, 3), 0x1234)))
    with pytest.raises(DatasetError, match="16 bits, of which none can be left out"):
        read_label(tmp_path / "x.png", meaning())


def test_ids_in_a_tiff_of_16_bits_a_channel(tmp_path: Path) -> None:
    done, data = cv2.imencode(".tif", np.repeat(IDS[..., None], 3, axis=2).astype(np.uint16))
    assert done
    (tmp_path / "x.tif").write_bytes(data.tobytes())
    assert read_label(tmp_path / "x.tif", meaning()).tolist() == IDS.tolist()
