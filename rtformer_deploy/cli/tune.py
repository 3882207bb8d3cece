"""`rtformer-deploy tune`: a model and a labelled dataset to the fastest mix of precisions within an allowed loss of mIoU."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from . import options, parse
from .terminal import echo

if TYPE_CHECKING:
    from ..commands.tune import Tuned


@click.command("tune")
@click.argument("model", type=options.PATH, default="model.onnx")
@options.dataset
@click.option(
    "--max-drop",
    type=parse.Number(),
    default=0.5,
    show_default=True,
    metavar="Y",
    help="Allow this loss of mIoU, in points; else exit code 3.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    metavar="N",
    help="Measure sensitivity on N frames; mIoU takes all.",
)
@options.backend
@options.ranges
@click.option("--resume", is_flag=True, help="Go on from the measurements in --output, also with another --max-drop.")
@click.option(
    "--seconds", type=parse.Number(min=0, min_open=True), default=10.0, show_default=True, help="Time each engine for so many seconds."
)
@options.bit_depth
@options.stop_on_error
@options.external
@options.device
@options.threads
@options.output("tuned", "Write recipe.toml, tune.json, tune.svg and the measurements into this folder.")
def command(stop_on_error: bool, **values: Any) -> None:
    """Find the fastest mix of INT8, FP16 and FP32 of MODEL (default model.onnx) whose mIoU drops by at most --max-drop.

    Each block's sensitivity is measured first, then real engines are scored on the dataset and timed in turns. Every measurement is
    kept as it is made: after Ctrl-C --resume goes on from there. The mix is written as a recipe for build-engine --recipe.
    """
    from ..commands.tune import TuneRequest, build_command, check_gate, tune
    from ..image.odd_files import OddFiles
    from .show import feedback

    request, odd = TuneRequest(**values), OddFiles(stop_on_error)
    with feedback() as terminal:
        tuned = tune(request, terminal, odd)
    _print(tuned)
    files = ("tune.json", "tune.svg", *(() if tuned.chosen is None else ("recipe.toml", "ranges.json")))
    echo(f"{request.output}: {', '.join(name for name in files if os.path.isfile(request.output / name))}")
    odd.raise_any(then="The ranges are those of the others.")
    check_gate(tuned)
    echo("Build it:")
    echo(f"  {build_command(request, tuned.backend)}")


def _print(tuned: Tuned) -> None:
    from .show import console, table

    out = console()
    rows = [(b.name, f"{100 * b.work:.1f}", _number(each.error), f"{100 * each.flips:.2f}") for b, each in tuned.blocks]
    out.print(table("Each block alone in INT8", ("block", "work %", "logits' error", "changed %"), rows, right=(1, 2, 3)))
    mixes = [
        (
            ("* " if point is tuned.chosen else "  ") + point.name,
            str(point.in_int8),
            f"{100 * point.miou:.2f}",
            f"{point.drop:.2f}",
            f"{point.latency_ms:.2f}",
            f"{point.ratio:.2f}",
        )
        for point in sorted(tuned.points, key=lambda point: point.ratio)
    ]
    out.print(table("Mixes (* chosen)", ("mix", "blocks in INT8", "mIoU %", "drop", "p50 ms", "to FP32"), mixes, right=(1, 2, 3, 4, 5)))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"
