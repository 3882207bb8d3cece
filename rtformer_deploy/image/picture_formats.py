"""The picture formats that every command reads: Pillow's names and their suffixes. Also tells a file's format from its first bytes."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache

from PIL import features


@dataclass(frozen=True, slots=True)
class PictureFormat:
    """One format: its name in Pillow, the suffixes of its files, and how to get its decoder (empty: every Pillow has it)."""

    name: str
    suffixes: tuple[str, ...]
    needs: str = ""


#: The formats that are read. Pillow never tries another one: its EPS reader would start Ghostscript.
PICTURE_FORMATS = (
    PictureFormat("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif")),
    PictureFormat("PNG", (".png",)),
    PictureFormat("WEBP", (".webp",)),
    PictureFormat("BMP", (".bmp",)),
    PictureFormat("TIFF", (".tif", ".tiff")),
    PictureFormat("AVIF", (".avif",), "pip install 'pillow>=11.3'"),
    PictureFormat("HEIF", (".heic", ".heif", ".hif"), "pip install 'rtformer-deploy[heif]'"),
)

#: The first bytes of files that are pictures or videos, but not in a format above.
_OTHERS = (
    (b"%!PS", "EPS (PostScript)"),
    (b"\xc5\xd0\xd3\xc6", "EPS (PostScript)"),
    (b"%PDF", "PDF"),
    (b"GIF8", "GIF"),
    (b"8BPS", "Photoshop"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"<svg", "SVG"),
    (b"version https://git-lfs", "a Git LFS pointer"),
)
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})


def readable() -> tuple[PictureFormat, ...]:
    """The formats that can be read on this machine."""
    return tuple(each for each in PICTURE_FORMATS if _decoder_is_here(each.name))


def decoders_for(data: bytes) -> list[str]:
    """The names that Pillow is to try on a file's bytes. The plug-in for HEIC is loaded for the first such file."""
    names = [each.name for each in readable()]
    if "HEIF" in names:
        if format_of(data) == "HEIF":
            _load_plugin()
        else:
            names.remove("HEIF")
    return names


def readable_suffixes() -> frozenset[str]:
    """The suffixes, in lower case, of the files that count as images in a folder."""
    return frozenset(suffix for each in readable() for suffix in each.suffixes)


def readable_names() -> str:
    """The names of the formats that can be read here, for a message."""
    return ", ".join(each.name for each in readable())


def missing_decoder(suffix: str) -> str | None:
    """The pip command that brings the decoder of files with this suffix; None if it is here, or if no decoder is known."""
    here = readable()
    return next((each.needs for each in PICTURE_FORMATS if suffix.lower() in each.suffixes and each not in here), None)


def format_of(data: bytes) -> str | None:
    """What a file's first bytes say it is, beside the formats that Pillow always reads: "HEIF", "AVIF", "GIF", ...; None if unknown."""
    if data[4:8] == b"ftyp":
        brands = {data[8:12], *(data[start : start + 4] for start in range(16, min(len(data), data[3] if not any(data[:3]) else 64), 4))}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        return "HEIF" if brands & _HEIC_BRANDS else "a video (MP4)"
    return next((name for start, name in _OTHERS if data.startswith(start)), None)


@cache
def _decoder_is_here(name: str) -> bool:
    if name == "AVIF":
        return "avif" in features.get_supported_modules()
    return name != "HEIF" or importlib.util.find_spec("pillow_heif") is not None


@cache
def _load_plugin() -> None:
    import pillow_heif

    pillow_heif.register_heif_opener()
