"""Class areas of segmented frames, from `segment --areas json`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..blocks import Block, Cell, Document, Heading, Part, Table, count, part, percent, short

_MOST = 2**53  # pixels

#: An area: class_id, class, pixels, share.
Area = Mapping[str, int | float | str]


@dataclass(frozen=True, slots=True)
class FrameAreas:
    """One frame's areas."""

    areas: tuple[Area, ...]


@dataclass(frozen=True, slots=True)
class Areas:
    """A document of class areas."""

    frames: tuple[FrameAreas, ...]


def section(documents: Sequence[Document[Areas]]) -> Part:
    """Documents -> for each the share of every class over all frames, the largest first."""
    return part("Class areas", documents, _details)


def _details(document: Document[Areas]) -> Iterator[Block]:
    pixels: dict[str, int] = {}
    for frame in document.data.frames:
        for area in frame.areas:
            number = area.get("pixels", 0)
            name = short(str(area.get("class", "?")))
            pixels[name] = pixels.get(name, 0) + (min(number, _MOST) if isinstance(number, int) and number > 0 else 0)
    total = sum(pixels.values()) or 1
    rows: list[list[Cell]] = [
        [name, count(each), percent(each / total)] for name, each in sorted(pixels.items(), key=lambda item: -item[1])
    ]
    yield Heading(document.name)
    yield Table(f"All frames together, {len(document.data.frames):,}", ("class", "pixels", "share, %"), rows[:255])
