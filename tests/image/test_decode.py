"""Image files of every kind become the upright RGB they show, or one clear error; nothing is half decoded."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rtformer_deploy.errors import ImageError, OutputError
from rtformer_deploy.image import picture_formats
from rtformer_deploy.image.decode import MAX_PIXELS, decode_image, load_image
from rtformer_deploy.image.png import save_png
from rtformer_deploy.image.reader import ImageReader
from rtformer_deploy.types import Frame

PICTURE = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_header(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True}), ("TIFF", {"compression": "tiff_lzw"})]
)
def test_lossless_formats_give_the_pixels_back(kind: str, options: dict[str, Any]) -> None:
    frame = decode_image(encode(Image.fromarray(PICTURE), kind, **options))
    assert frame.dtype == np.uint8
    assert frame.flags.c_contiguous
    np.testing.assert_array_equal(frame, PICTURE)


@pytest.mark.parametrize("turned", [False, True])
def test_a_file_is_decoded_into_the_memory_that_is_given(tmp_path: Path, turned: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6 if turned else 1
    Image.fromarray(PICTURE).save(tmp_path / "a.png", exif=exif)
    given: list[Frame] = []

    def give(size: tuple[int, int]) -> Frame:
        given.append(np.full((*size, 3), 7, np.uint8))
        return given[-1]

    frames = [load_image(tmp_path / "a.png", frame=give), ImageReader().load(tmp_path / "a.png", give)]
    for frame, memory in zip(frames, given, strict=True):
        assert frame is memory
        np.testing.assert_array_equal(frame, PICTURE.swapaxes(0, 1)[:, ::-1] if turned else PICTURE)


def test_no_memory_is_asked_for_a_file_that_cannot_be_decoded() -> None:
    def give(size: tuple[int, int]) -> Frame:
        raise AssertionError("it was asked for")

    with pytest.raises(ImageError, match="damaged or cut off"):
        decode_image(encode(Image.fromarray(PICTURE), "PNG")[:60], frame=give)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA"])
def test_modes(mode: str) -> None:
    image = Image.fromarray(PICTURE).convert("L" if mode in ("L", "1", "LA") else "RGB")
    expected = np.asarray(image.convert("1" if mode == "1" else image.mode).convert("RGB"))
    if mode == "P":
        image = Image.fromarray(PICTURE).quantize(8)
        expected = np.asarray(image.convert("RGB"))
        data = encode(image, "PNG", transparency=bytes(range(8)))  # alpha in the palette
    else:
        image = image.convert(mode)
        if "A" in mode:
            image.putalpha(Image.new("L", image.size, 0))  # all transparent: the colour under it counts
        data = encode(image, "PNG")
    np.testing.assert_array_equal(decode_image(data), expected)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_the_high_byte(kind: str) -> None:
    grey = np.array([[0, 255, 256, 257], [0x1234, 0x8000, 0xFF00, 0xFFFF]], np.uint16)
    expected = np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, axis=2)
    np.testing.assert_array_equal(decode_image(encode(Image.fromarray(grey), kind)), expected)


def test_floating_point_samples_are_refused() -> None:
    with pytest.raises(ImageError, match="floating-point"):
        decode_image(encode(Image.fromarray(np.zeros((2, 2), np.float32)), "TIFF"))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int, kind: str) -> None:
    """As the EXIF standard draws it: where the stored row 0 and column 0 lie in the upright picture."""
    upright = {
        1: PICTURE,
        2: PICTURE[:, ::-1],
        3: PICTURE[::-1, ::-1],
        4: PICTURE[::-1],
        5: PICTURE.swapaxes(0, 1),
        6: PICTURE.swapaxes(0, 1)[:, ::-1],
        7: PICTURE.swapaxes(0, 1)[::-1, ::-1],
        8: PICTURE.swapaxes(0, 1)[::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    exact: dict[str, dict[str, Any]] = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}
    frame = decode_image(encode(Image.fromarray(PICTURE), kind, exif=exif, **exact.get(kind, {})))
    assert frame.shape == upright.shape
    assert np.abs(frame.astype(int) - upright).max() <= (3 if kind == "AVIF" else 0)


@pytest.mark.parametrize(
    ("turned", "upright", "within"),
    [
        ("derived/lund_07_exif6.jpg", "lund_07.jpg", 3.0),
        ("derived/lund_07_exif2.jpg", "lund_07.jpg", 3.0),
        ("derived/lund_07_exif3.jpg", "lund_07.jpg", 3.0),
        ("derived/udacity_test4_cmyk.jpg", "udacity_test4.jpg", 3.0),
        ("derived/udacity_test4_progressive.jpg", "udacity_test4.jpg", 3.0),
        ("derived/comma2k19_palette.png", "derived/comma2k19_rgba.png", 12.0),
        ("derived/comma2k19_rgba_png_named.jpg", "derived/comma2k19_rgba.png", 0.0),
        ("derived/lund_25_gray16.png", "derived/lund_25_gray.jpg", 1.0),
    ],
)
def test_odd_media_show_what_the_plain_ones_show(shared: Path, turned: str, upright: str, within: float) -> None:
    a, b = load_image(shared / "media" / turned), load_image(shared / "media" / upright)
    assert a.shape == b.shape
    assert np.abs(a.astype(int) - b).mean() <= within


def test_alpha_is_dropped_not_blended(shared: Path) -> None:
    frame = load_image(shared / "media/derived/comma2k19_rgba.png")
    assert frame[:, :50].mean() > 60  # alpha is nearly 0 there


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("truncated.jpg", "damaged or cut off"),
        ("empty.jpg", "is empty"),
        ("text_named.jpg", "is not an image"),
        ("truncated.mp4", "is not an image"),
        ("missing.jpg", "No such file"),
        ("", "Cannot read"),
    ],
)
def test_bad_files_are_refused(shared: Path, name: str, says: str) -> None:
    with pytest.raises(ImageError, match=says):
        load_image(shared / "media/bad" / name)


@pytest.mark.parametrize(("kind", "options"), [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("BMP", {}), ("WEBP", {})])
def test_a_cut_off_file_is_never_half_decoded(kind: str, options: dict[str, Any]) -> None:
    smooth = np.add.outer(np.arange(60), np.arange(50)).astype(np.uint8)
    data = encode(Image.fromarray(smooth).convert("RGB"), kind, **options)
    whole = decode_image(data)
    refused = 0
    for cut in range(1, len(data), max(1, len(data) // 100)):
        try:
            np.testing.assert_array_equal(decode_image(data[:cut]), whole)  # only an end that holds no pixels may be missing
        except ImageError:
            refused += 1
    assert refused > 50


@pytest.mark.parametrize(("kind", "options"), [("JPEG", {}), ("PNG", {}), ("BMP", {}), ("WEBP", {}), ("TIFF", {})])
def test_damaged_files_raise_nothing_but_image_errors(kind: str, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(1)
    exif = Image.Exif()
    exif[0x0112] = 6
    data = np.frombuffer(encode(Image.fromarray(PICTURE), kind, **({} if kind == "BMP" else {"exif": exif}), **options), np.uint8)
    refused = 0
    for _ in range(200):
        broken = data.copy()
        broken[rng.integers(0, min(len(broken), 150), 3)] = rng.integers(0, 256, 3)
        try:
            assert decode_image(broken.tobytes()).ndim == 3
        except ImageError:
            refused += 1
    assert refused


def test_heic_is_read_with_its_plug_in() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    exif = Image.Exif()
    exif[0x0112] = 6
    smooth = np.add.outer(np.arange(64), 2 * np.arange(48)).astype(np.uint8)
    heif = pillow_heif.from_pillow(Image.fromarray(smooth).convert("RGB"))
    data = io.BytesIO()
    heif.save(data, quality=95, exif=exif.tobytes())
    assert picture_formats.format_of(data.getvalue()) == "HEIF"
    frame = decode_image(data.getvalue())
    upright = np.rot90(smooth, -1)
    assert frame.shape == (*upright.shape, 3)
    assert np.abs(frame[..., 0].astype(int) - upright).mean() < 2


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
AVIF = b"\0\0\0\x1cftypmif1\0\0\0\0avifmif1miaf" + bytes(100)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (HEIC, r"x is a HEIC image, which needs the package pillow-heif\.\nRun: pip install 'rtformer-deploy\[heif\]'"),
        (AVIF, r"x is an AVIF image, which needs a newer Pillow\.\nRun: pip install 'pillow>=11\.3'"),
    ],
)
def test_a_missing_decoder_is_named(data: bytes, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_formats, "_decoder_is_here", lambda name: name not in ("HEIF", "AVIF"))
    with pytest.raises(ImageError, match=says):
        decode_image(data, "x")
    assert not {".heic", ".avif"} & picture_formats.readable_suffixes()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"GIF89a" + bytes(20), "GIF"),
        (b"%PDF-1.7", "PDF"),
        (b"\0\0\0\x1cftypisom\0\0\x02\0isomiso2mp41", r"a video \(MP4\)"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
    ],
)
def test_what_is_no_image_is_named(data: bytes, kind: str) -> None:
    with pytest.raises(ImageError, match=rf"x\.png is not an image that can be read: it is {kind}\.\nThese can: JPEG, PNG"):
        decode_image(data, "x.png")


def test_eps_never_starts_ghostscript(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", started)
    monkeypatch.setattr("subprocess.Popen", started)
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(ImageError, match=r"it is EPS \(PostScript\)"):
        decode_image(eps, "x.png")


def test_of_several_pictures_in_a_file_the_first_is_taken() -> None:
    """As telephones write JPEGs, and TIFF has pages."""
    pages = [Image.fromarray(PICTURE), Image.fromarray(255 - PICTURE)]
    np.testing.assert_array_equal(decode_image(encode(pages[0], "TIFF", save_all=True, append_images=pages[1:])), PICTURE)
    both = encode(pages[0], "MPO", save_all=True, append_images=pages[1:])
    np.testing.assert_array_equal(decode_image(both), decode_image(encode(pages[0], "JPEG")))


def test_a_small_file_of_13000_by_13000_pixels_is_refused() -> None:
    """One bit a pixel, all alike: 20 KB that would take 500 MB."""
    data = encode(Image.new("1", (13_000, 13_000)), "PNG")
    assert len(data) < 50_000
    for large in (data, encode(Image.new("1", (13_000, 13_000)), "TIFF", compression="group4")):
        with pytest.raises(ImageError, match=r"x\.png is 13000x13000, 169,000,000 pixels; at most 89,478,485 pixels"):
            decode_image(large, "x.png")


@pytest.mark.parametrize("size", [(100_000, 100_000), (12_000, 12_000), (MAX_PIXELS + 1, 1)])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(size: tuple[int, int], recwarn: pytest.WarningsRecorder) -> None:
    data = png_header(*size) + png_chunk(b"IDAT", zlib.compress(b"")) + png_chunk(b"IEND", b"")
    with pytest.raises(ImageError, match=f"is {size[0]}x{size[1]}, .* decompression bomb"):
        decode_image(data)
    assert not recwarn.list


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_zero_sized(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError):
        decode_image(png_header(*size) + png_chunk(b"IDAT", zlib.compress(b"")) + png_chunk(b"IEND", b""), "zero.png")
    with pytest.raises(ImageError):
        decode_image(b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, *size, 1, 24, 0, 0, 0, 0, 0, 0))


def test_save_png_label_map_and_picture(tmp_path: Path) -> None:
    labels = np.arange(256, dtype=np.uint8).reshape(8, 32)
    save_png(tmp_path / "labels.png", labels)
    with Image.open(tmp_path / "labels.png") as image:
        assert image.mode == "L"
        np.testing.assert_array_equal(np.asarray(image), labels)
    save_png(tmp_path / "picture.png", PICTURE[:, ::-1])
    np.testing.assert_array_equal(load_image(tmp_path / "picture.png"), PICTURE[:, ::-1])
    with pytest.raises(OutputError, match="does not exist"):
        save_png(tmp_path / "nowhere" / "labels.png", labels)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.png", "picture.png"]
