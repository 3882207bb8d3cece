"""`rtformer-deploy calibrate`: images to the ranges that INT8 needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import options
from .options import PATH, foreign, output, threads

if TYPE_CHECKING:
    from ..formats.external_model import Foreign
    from ..image.reader import ImageReader


@click.command("calibrate")
@click.argument("model", type=PATH, default="model.onnx")
@click.option("--images", type=PATH, required=True, metavar="DIR", help="Folder of images like those that will be segmented.")
@click.option(
    "--method",
    type=click.Choice(["minmax", "entropy", "percentile", "mse"]),
    default="mse",
    show_default=True,
    help="How a range is chosen from what was seen.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Take N images, drawn at random [default: all].")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the draw.")
@options.reader
@options.stop_on_error
@foreign
@threads
@output("ranges.json", "Where to write the ranges.")
def command(
    model: Path, images: Path, method: str, limit: int | None, seed: int, reader: ImageReader, stop_on_error: bool,
    threads: int | None, output: Path, said: Foreign,
) -> None:  # fmt: skip
    """Measure the range of every tensor of MODEL (default model.onnx) on images, for build-engine --int8.

    An interrupted run goes on where it stopped. The ranges belong to the weights and the configuration: they hold at every input
    size and are refused for other weights.
    """
    from ..commands.calibrate import calibrate_file
    from ..image.odd_files import OddFiles
    from .show import progress_bar

    odd = OddFiles(stop_on_error)
    with progress_bar() as progress:
        ranges = calibrate_file(
            model, images, output, method=method, limit=limit, seed=seed, threads=threads, said=said,
            reader=reader, odd=odd, say=click.echo, progress=progress,
        )  # fmt: skip
    click.echo(f"{output}: ranges of {len(ranges.amax)} tensors by {method}, from {ranges.images} images.")
    odd.raise_any(then=f"{output} holds the ranges of the others.")
