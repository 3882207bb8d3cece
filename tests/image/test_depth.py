"""Samples of more than 8 bits: the depth that a file states, the one that was asked for, and what is said if neither is there."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from odd_pngs import png16
from PIL import Image, TiffImagePlugin

from rtformer_deploy.errors import ImageError
from rtformer_deploy.image.decode import decode_image, decode_with_note
from rtformer_deploy.image.reader import ImageReader

PICTURE = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
PICTURE[0, :2] = [[0], [255]]
GREY = PICTURE[..., 0]
SHOWN = np.repeat(GREY[..., None], 3, axis=2)


def tiff(values: NDArray[Any], **tags: float) -> bytes:
    """A grey TIFF of any sample type with tags, as their numbers: t341=4095."""
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for name, value in tags.items():
        info[int(name[1:])] = value
    data = io.BytesIO()
    Image.fromarray(values).save(data, "TIFF", tiffinfo=info)
    return data.getvalue()


def colour_tiff(values: NDArray[np.uint16]) -> bytes:
    done, data = cv2.imencode(".tif", np.ascontiguousarray(values[..., ::-1]))
    assert done
    return data.tobytes()


def wide(values: NDArray[np.uint8], bits: int) -> NDArray[np.uint16]:
    """8-bit values as samples of `bits`, their low bits filled with the high ones."""
    return (values.astype(np.uint16) << (bits - 8) | values >> (16 - bits)).astype(np.uint16)


def note(data: bytes, bit_depth: int | None = None) -> str:
    found = decode_with_note(data, "x", bit_depth)[1]
    return "" if found is None else found.text


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sbit_says_how_many_bits_a_png_uses(bits: int, channels: int) -> None:
    planes = {1: GREY[..., None], 2: np.dstack([GREY, GREY]), 3: PICTURE, 4: np.dstack([PICTURE, GREY])}[channels]
    data = png16(wide(planes, bits), bits)
    np.testing.assert_array_equal(decode_image(data), PICTURE if channels > 2 else SHOWN)
    assert note(data) == ""


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_scaled_to_16_bits_as_its_standard_wants_is_read_as_such(channels: int) -> None:
    """sBIT 12 and samples that fill 16 bits: the high byte."""
    values = GREY if channels == 1 else PICTURE
    data = png16(values.astype(np.uint16) * 257, 12)
    np.testing.assert_array_equal(decode_image(data), PICTURE if channels == 3 else SHOWN)


@pytest.mark.parametrize("channels", [1, 3])
def test_without_a_word_a_png_is_read_as_16_bits_and_that_is_said(channels: int) -> None:
    values = GREY if channels == 1 else PICTURE
    data = png16(wide(values, 12))
    np.testing.assert_array_equal(decode_image(data), (wide(PICTURE if channels == 3 else SHOWN, 12) >> 8).astype(np.uint8))
    assert "does not say how many of their bits are used: read as 16" in note(data)
    assert "give --bit-depth 12" in note(data)
    assert "--bit-depth" not in note(png16(wide(values, 16)))


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("make", [png16, colour_tiff])
def test_a_bit_depth_that_was_asked_for_counts(bits: int, make: Any) -> None:
    data = make(wide(PICTURE, bits))
    np.testing.assert_array_equal(decode_image(data, bit_depth=bits), PICTURE)
    assert note(data, bits) == ""


def test_a_bit_depth_that_was_asked_for_overrules_the_file() -> None:
    np.testing.assert_array_equal(decode_image(png16(wide(GREY, 12), 14), bit_depth=12), SHOWN)
    np.testing.assert_array_equal(decode_image(tiff(wide(GREY, 12), t341=65535), bit_depth=12), SHOWN)


@pytest.mark.parametrize("bits", [4, 12])
def test_samples_that_a_bit_depth_cannot_hold_are_refused(bits: int) -> None:
    with pytest.raises(ImageError, match=rf"more than {bits} bits hold"):
        decode_image(png16(wide(PICTURE, 16)), bit_depth=bits)


def test_more_bits_than_the_file_has_are_refused() -> None:
    with pytest.raises(ImageError, match="samples of 16 bits, fewer than --bit-depth 24"):
        decode_image(png16(wide(GREY, 16)), bit_depth=24)


def test_a_bit_depth_leaves_images_of_8_bits_alone() -> None:
    data = io.BytesIO()
    Image.fromarray(PICTURE).save(data, "PNG")
    np.testing.assert_array_equal(decode_image(data.getvalue(), bit_depth=12), PICTURE)


def test_fewer_than_8_bits_are_stretched() -> None:
    np.testing.assert_array_equal(decode_image(png16(np.array([[0, 5, 15]])), bit_depth=4)[0, :, 0], [0, 85, 255])


@pytest.mark.parametrize("tags", [{"t341": 4095}, {"t341": 3987}, {"t281": 4095}])
def test_a_tiff_states_its_largest_sample(tags: dict[str, float]) -> None:
    values = np.minimum(wide(GREY, 12), int(max(tags.values()))).astype(np.uint16)
    data = tiff(values, **tags)
    np.testing.assert_array_equal(decode_image(data)[..., 0], values >> 4)
    assert note(data) == ""


def test_a_tiff_without_a_word_is_read_as_16_bits_and_that_is_said() -> None:
    data = tiff(wide(GREY, 12))
    np.testing.assert_array_equal(decode_image(data)[..., 0], wide(GREY, 12) >> 8)
    assert "give --bit-depth 12" in note(data)


def test_a_tiff_of_12_bits_a_sample() -> None:
    """Two samples in three bytes, as scientific cameras pack them."""
    values = np.array([[0, 0xFFF, 0x123, 0x456]], np.uint32)
    packed = bytes([0x00, 0x0F, 0xFF, 0x12, 0x34, 0x56])
    tags = [(256, 4), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, len(packed))]
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (256, 257, 273, 278, 279) else 3, 1, value) for tag, value in tags)
    pixels = packed + b"\0\0"
    data = b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + struct.pack("<H", len(tags)) + entries + b"\0\0\0\0"
    np.testing.assert_array_equal(decode_image(data)[..., 0], values >> 4)
    assert note(data) == ""


@pytest.mark.parametrize(("kind", "bits"), [(np.int32, 8), (np.int32, 16), (np.uint32, 8), (np.uint32, 16)])
def test_32_bit_integers_are_read_as_the_fewest_usual_bits_that_hold_them(kind: type, bits: int) -> None:
    data = tiff(wide(GREY, bits).astype(kind) if bits > 8 else GREY.astype(kind))
    np.testing.assert_array_equal(decode_image(data), SHOWN)
    assert f"read as {bits}-bit samples" in note(data)


def test_32_bit_integers_that_fill_their_bits() -> None:
    done, data = cv2.imencode(".tif", GREY.astype(np.uint32) * 0x01010101)  # unsigned in the file too
    assert done
    np.testing.assert_array_equal(decode_image(data.tobytes()), SHOWN)


def test_32_bit_integers_with_a_stated_largest_one_or_a_bit_depth() -> None:
    values = wide(GREY, 12).astype(np.int32)
    np.testing.assert_array_equal(decode_image(tiff(values, t341=4095)), SHOWN)
    np.testing.assert_array_equal(decode_image(tiff(values), bit_depth=12), SHOWN)


def test_samples_below_0_are_refused_unless_a_tag_says_where_they_begin() -> None:
    values = GREY.astype(np.int32) - 128
    with pytest.raises(ImageError, match="samples below 0"):
        decode_image(tiff(values))
    done, data = cv2.imencode(".tif", values)
    assert done
    with pytest.raises(ImageError, match="samples below 0"):
        decode_image(data.tobytes())


def test_floating_point_samples_need_a_range() -> None:
    values = (GREY / 255).astype(np.float32)
    with pytest.raises(ImageError, match=r"floating-point samples, whose range is not known[\s\S]*--bit-depth"):
        decode_image(tiff(values))
    np.testing.assert_array_equal(decode_image(tiff(values, t340=0.0, t341=1.0)), SHOWN)
    np.testing.assert_array_equal(decode_image(tiff(values), bit_depth=1), SHOWN)  # 0 to 2^1 - 1
    np.testing.assert_array_equal(decode_image(tiff(GREY.astype(np.float32)), bit_depth=8), SHOWN)


@pytest.mark.parametrize("value", [1.5, -0.5, np.nan, np.inf])
def test_floating_point_samples_outside_their_range_are_refused(value: float) -> None:
    with pytest.raises(ImageError, match="outside their range"):
        decode_image(tiff(np.array([[0.5, value]], np.float32), t340=0.0, t341=1.0))


def test_a_reader_says_each_thing_once(tmp_path: Path) -> None:
    said: list[str] = []
    reader = ImageReader(say=said.append)
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(png16(wide(GREY, 16)))
        reader.load(tmp_path / f"{name}.png")
    assert len(said) == 1
    assert "a.png holds 16-bit samples" in said[0]
    asked = ImageReader(16, said.append)
    asked.load(tmp_path / "a.png")
    assert len(said) == 1
