"""Reports of `segment --flicker`: how much of a still picture changes class from frame to frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from markupsafe import Markup
from msgspec import Meta

from ...types import Count, Share
from ..blocks import Block, Cell, Document, Heading, Part, Picture, Table, count, part, percent, short
from ..flicker import draw_flicker
from ..svg import cropped

Seconds = Annotated[float, Meta(ge=-1e9, le=1e9)]


@dataclass(frozen=True, slots=True)
class ClassFlicker:
    """One class: its still pixels, and the share of them that change class."""

    still_pixels: Count
    share: Share | None


@dataclass(frozen=True, slots=True)
class FrameFlicker:
    """One frame, compared with the one before."""

    time: Seconds
    share: Share


@dataclass(frozen=True, slots=True)
class Flicker:
    """A report of flicker."""

    threshold: Annotated[float, Meta(ge=0, le=255)]
    share: Share | None
    classes: Annotated[Mapping[str, ClassFlicker], Meta(max_length=255)]
    frames: tuple[FrameFlicker, ...]


def section(documents: Sequence[Document[Flicker]]) -> Part:
    """Reports -> a table of all of them, and each over time and by class."""
    rows: list[list[Cell]] = [[each.name, count(len(each.data.frames)), percent(each.data.share)] for each in documents]
    return part("Flicker", documents, _details, Table("Still pixels that change class", ("file", "frames", "flicker, %"), rows))


def _details(document: Document[Flicker]) -> Iterator[Block]:
    data = document.data
    yield Heading(document.name)
    times, shares = [frame.time for frame in data.frames], [frame.share for frame in data.frames]
    yield Picture(Markup(draw_flicker(document.name, times, shares, data.share, data.threshold, cropped)))
    rows: list[list[Cell]] = [[short(name), count(each.still_pixels), percent(each.share)] for name, each in data.classes.items()]
    yield Table("By class", ("class", "still pixels", "flicker, %"), rows)
