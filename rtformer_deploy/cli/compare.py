"""`rtformer-deploy compare`: networks, or the formats of one model, side by side on this machine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from . import known, options, parse
from .terminal import echo

if TYPE_CHECKING:
    from ..comparison.result import Compared


@click.command("compare")
@click.argument("model", type=options.PATH, required=False)
@click.option("--suite", type=known.SUITE, metavar="NAME", help="Compare the networks of a suite: paper or attention.")
@click.option("--formats", is_flag=True, help="Compare the formats that MODEL can be run in.")
@click.option("--size", callback=parse.size(), metavar="HxW", help="Set the size of the frames of a suite [default: the suite's].")
@click.option("--add", type=options.PATH, multiple=True, metavar="FILE", help="Put your own model beside a suite's (ONNX or safetensors).")
@click.option("--weights", multiple=True, metavar="[NAME=]FILE", help="Give a suite's network NAME, or MODEL, its weights.")
@options.backend
@click.option("--fp16", "precision", flag_value="fp16", default=None, help="Build a suite's engines in FP16 [default: FP32].")
@click.option("--int8", "precision", flag_value="int8", help="Build a suite's engines in INT8; their ranges need --images.")
@options.ranges
@click.option(
    "--dataset",
    type=known.DATASET,
    metavar="NAME|FILE",
    help="Measure mIoU on this labelled dataset if there are weights; needs --root.",
)
@click.option("--root", type=options.PATH, metavar="DIR", help="Read the dataset from this folder.")
@click.option("--split", default="val", show_default=True, help="Take this part of it.")
@click.option("--rounds", type=click.IntRange(1, 1000), default=30, show_default=True, metavar="N", help="Take so many rounds of turns.")
@click.option(
    "--seconds",
    type=parse.Number(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Time each contestant for so many seconds in a round.",
)
@click.option("--plans", type=options.PATH, metavar="DIR", help="Keep a suite's engines here, and take those that fit [default: --output].")
@click.option("--resume", is_flag=True, help="Go on from the measurements in --output.")
@click.option("--json", "json_path", type=options.PATH, metavar="FILE", help="Write the figures here [default: into --output].")
@click.option("--svg", "svg_path", type=options.PATH, metavar="FILE", help="Write the scatter picture here [default: into --output].")
@click.option("--html", "html_path", type=options.PATH, metavar="FILE", help="Write a page here [default: into --output].")
@options.external
@options.device
@options.threads
@options.output("compared", "Write the report, the picture, the page and the measurements into this folder.")
def command(**values: Any) -> None:
    """Compare networks (--suite), or the formats of MODEL (--formats), side by side on this machine.

    Every contestant runs in a process of its own. They take turns, round after round, so that what disturbs the machine falls on all
    alike. One that fails is a row that says why. Every round is kept as it is measured: after Ctrl-C --resume goes on from there.
    """
    from ..commands.compare import CompareRequest, compare
    from .show import feedback

    request = CompareRequest(**values)
    with feedback() as terminal:
        compared = compare(request, terminal)
    _print(compared)
    files = (path for path in (request.report, request.picture, request.page) if os.path.isfile(path))
    echo(f"Wrote {', '.join(map(str, files))}.")


def _print(compared: Compared) -> None:
    from .show import console, table

    out = console()
    out.print(compared.title)
    for each in compared.tables:
        out.print(table(each.title, each.columns, each.rows, right=each.right))
        if each.note:
            out.print(each.note)
    for note in compared.notes:
        out.print(f"Note: {note}")
