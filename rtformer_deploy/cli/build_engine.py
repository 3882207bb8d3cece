"""`rtformer-deploy build-engine`: ONNX model to an engine plan."""

from __future__ import annotations

from typing import Any

import click

from . import known, options, parse

Bounds = tuple[int, ...] | None


@click.command("build-engine")
@click.argument("model", type=options.PATH, default="model.onnx")
@click.option("--fp32", "precision", flag_value="fp32", default=None, help="Compute in FP32 [default].")
@click.option("--fp16", "precision", flag_value="fp16", help="Write FP16 into the graph; the double normalisation stays FP32.")
@click.option(
    "--int8", "precision", flag_value="int8", help="Quantise convolutions and linear layers; the rest is FP16 on TensorRT, FP32 on a CPU."
)
@click.option(
    "--fp8", "precision", flag_value="fp8", help="Quantise to FP8, for GPUs of compute capability 8.9 and later; never run so far."
)
@options.ranges
@click.option("--keep", multiple=True, metavar="NAME", help="Leave nodes of this name (a glob) out of INT8 or FP8; repeatable.")
@click.option("--fastest", is_flag=True, help="Try FP32, FP16 and INT8, and take the fastest that --max-flips allows.")
@click.option("--recipe", type=known.RECIPE, metavar="NAME|FILE", help="Take precision, --keep and ranges from a recipe's [build].")
@options.backend
@click.option(
    "--min", "smallest", callback=parse.profile, metavar="N|NxCxHxW", help="Set the smallest batch of a model with a dynamic batch."
)
@click.option("--opt", "usual", callback=parse.profile, metavar="N|NxCxHxW", help="Set the batch to optimise for.")
@click.option("--max", "largest", callback=parse.profile, metavar="N|NxCxHxW", help="Set the largest batch.")
@options.build_options
@click.option("--strict", is_flag=True, help="Fail if the engine's layers do not have the precision asked for.")
@click.option("--check-images", type=options.PATH, metavar="DIR", help="Compare with ONNX Runtime on these images too.")
@click.option(
    "--max-flips",
    callback=parse.share,
    metavar="X",
    help="Write nothing (exit 3) above this share of changed pixels: 0.005 or 0.5%. With --fastest: leave out what is above [1%].",
)
@options.bit_depth
@options.stop_on_error
@options.external
@options.output("engine.plan", "Write the plan here; what it is goes beside it as .json.")
def command(smallest: Bounds, usual: Bounds, largest: Bounds, **values: Any) -> None:
    """Build an engine from MODEL (default model.onnx): a plan, and beside it a JSON that says what it is.

    After the build the engine's layers are read and the precision found is printed. If this machine can run the engine, it is compared
    with ONNX Runtime (its optimisations off) on the model it came from, on a photograph, on noise and on --check-images. The largest
    share of pixels that change class on one of them is the engine's figure.

    --fastest builds FP32, FP16 and INT8 and times them in turns on this machine. FP32 is always allowed; if two differ by no more than
    noise, the more precise one is taken.
    """
    from ..commands.build_engine import BuildRequest, build_to_file
    from .show import feedback

    request = BuildRequest(profile=(smallest, usual, largest), **values)
    with feedback() as terminal:
        build_to_file(request, terminal)
