"""`rtformer-deploy calibrate`: images to the ranges that INT8 and FP8 need."""

from __future__ import annotations

from typing import Any

import click

from . import options, parse
from .terminal import echo


@click.command("calibrate")
@click.argument("model", type=options.PATH, default="model.onnx")
@click.option(
    "--images", type=options.PATH, required=True, metavar="DIR", help="Measure on this folder of images, like those that will be segmented."
)
@click.option(
    "--method",
    type=click.Choice(["minmax", "entropy", "percentile", "mse"]),
    default="mse",
    show_default=True,
    help="Choose how a range follows from the histogram.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Take N images, drawn at random [default: all].")
@click.option("--seed", type=parse.SEED, default=0, show_default=True, help="Seed the draw.")
@options.reader
@options.stop_on_error
@options.external
@options.threads
@options.output("ranges.json", "Write the ranges here.")
@options.cluster
@options.stall
@click.pass_context
def command(context: click.Context, /, stop_on_error: bool, **values: Any) -> None:
    """Measure the range of every tensor of MODEL (default model.onnx) on images, for build-engine --int8.

    An interrupted run goes on where it stopped. The ranges belong to the weights, the configuration and the preprocessing: they hold
    at every input size and are refused for other weights, or another mean, std, resize, resize_corners or scale. With --cluster every
    node measures a part of the images, which all of them see at the same place; the ranges are the same.
    """
    options.check_cluster(context, ())
    from ..commands.calibrate import CalibrateRequest, calibrate_file
    from ..image.odd_files import OddFiles
    from .show import feedback

    request, odd = CalibrateRequest(**values), OddFiles(stop_on_error)
    with feedback() as terminal:
        ranges = calibrate_file(request, terminal, odd)
    echo(f"{request.output}: ranges of {len(ranges.amax)} tensors by {request.method}, from {ranges.images} images.")
    odd.raise_any(then=f"{request.output} holds the ranges of the others.")
