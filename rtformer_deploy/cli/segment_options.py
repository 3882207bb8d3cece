"""The options of `segment` that say how results look, which answers are written, and which pixels are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from . import options, parse
from .options import Command, Values, gathered

if TYPE_CHECKING:
    from pathlib import Path

    from ..image.selection import Selection


def look(command: Command) -> Command:
    """--alpha, --legend, --palette; the command gets them as `look`, a stream.sinks.Look."""

    def gather(values: Values) -> Values:
        from ..stream.sinks import Look

        return {"look": Look(**values)}

    return gathered(
        gather,
        alpha=click.option("--alpha", type=parse.Number(0, 1), default=0.5, show_default=True, help="Weigh the colours in the overlay."),
        legend=click.option("--legend", is_flag=True, help="Draw the classes' names and colours into the overlay."),
        palette=click.option("--palette", is_flag=True, help="Write label maps in the classes' colours; the values stay the ids."),
    )(command)


def answers(command: Command) -> Command:
    """--areas, --polygons, --tolerance, --confidence; the command gets them as `answers`, a segment_answers.Answers."""

    def gather(values: Values) -> Values:
        from ..commands.segment_answers import Answers

        return {"answers": Answers(**values)}

    areas, polygons = click.Choice(["csv", "json"]), click.Choice(["geojson", "coco"])
    tolerance = "Leave out polygon corners within T pixels; neighbours keep one border (GeoJSON only)."
    return gathered(
        gather,
        areas=click.option("--areas", type=areas, multiple=True, help="Write how much of each frame each class has."),
        polygons=click.option("--polygons", type=polygons, multiple=True, help="Write the areas as polygons with holes, or as COCO's RLE."),
        tolerance=click.option("--tolerance", type=parse.Number(0), default=0, show_default=True, metavar="T", help=tolerance),
        confidence=click.option("--confidence", is_flag=True, help="Write how sure each pixel's class is, 8-bit grey (255: certain)."),
    )(command)


def choice(command: Command) -> Command:
    """--only, --roi, --min-confidence; the command gets them as `choice`, a Choice."""

    def gather(values: Values) -> Values:
        return {"choice": Choice(**values)}

    roi = "Look only where this mask, of the frame's size, is not black."
    return gathered(
        gather,
        only=click.option("--only", metavar="NAME,...", help="Keep these classes; other pixels get the id 255 and no colour."),
        roi=click.option("--roi", type=options.PATH, metavar="MASK", help=roi),
        least=click.option("--min-confidence", "least", type=parse.Number(0, 1), metavar="P", help='Call less certain pixels "unsure".'),
    )(command)


#: Where videos are decoded.
decode = click.option(
    "--decode",
    type=click.Choice(["auto", "gpu", "cpu"]),
    default="auto",
    show_default=True,
    help="Decode videos there; auto is the GPU if the engine runs on it and it can.",
)

#: What needs a sequence, one machine's devices, or one file about all images, and is therefore refused with --cluster.
ONE_MACHINE = (
    "cameras", "labels", "every", "seconds", "retry", "smooth", "flicker", "decode", "device", "areas",
)  # fmt: skip


class Choice:
    """Which pixels a user asks for, before the model's classes are known."""

    def __init__(self, only: str | None, roi: Path | None, least: float | None) -> None:
        self._only, self._roi, self._least = only, roi, least

    def of(self, classes: tuple[str, ...]) -> Selection | None:
        """The choice for a model's classes; None: all pixels. Raises UsageError for an unknown name, ImageError for the mask."""
        from ..image.selection import UNSURE, Selection, class_ids, load_region

        if self._only is None and self._roi is None and self._least is None:
            return None
        names = classes if self._least is None else (*classes, UNSURE)
        only = None if self._only is None else class_ids(self._only.split(","), names)
        return Selection(only, None if self._roi is None else load_region(self._roi), self._least)
