"""`rtformer-deploy build-engine`: ONNX model to an engine plan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..backends import BACKENDS
from . import options, parse
from .options import PATH, device, foreign, output, threads

if TYPE_CHECKING:
    from ..formats.external_model import Foreign
    from ..types import PrecisionName


@click.command("build-engine")
@click.argument("model", type=PATH, default="model.onnx")
@click.option("--fp32", "precision", flag_value="fp32", default=None, help="FP32 [default].")
@click.option("--fp16", "precision", flag_value="fp16", help="FP16, written into the graph; the double normalisation stays FP32.")
@click.option("--int8", "precision", flag_value="int8", help="INT8 convolutions by Q/DQ; the rest FP16 on TensorRT, FP32 on a CPU.")
@click.option("--ranges", type=PATH, metavar="FILE", help="INT8: ranges from calibrate [default: those that come with the recipe].")
@click.option("--images", type=PATH, metavar="DIR", help="INT8: measure the ranges on these images first.")
@click.option("--keep", multiple=True, metavar="NAME", help="INT8: leave nodes of this name (a glob) in high precision; repeatable.")
@click.option(
    "--recipe",
    metavar="NAME|FILE",
    help="Take precision, --keep and ranges from a recipe's [build], as tune writes it.",
)
@click.option(
    "--backend",
    type=click.Choice(["auto", *BACKENDS]),
    default="auto",
    show_default=True,
    help="auto: TensorRT where there is a GPU, else OpenVINO, else ONNX Runtime.",
)
@click.option("--min", "smallest", callback=parse.profile, metavar="N|NxCxHxW", help="Smallest batch of a model with a dynamic batch.")
@click.option("--opt", "usual", callback=parse.profile, metavar="N|NxCxHxW", help="Batch to optimise for.")
@click.option("--max", "largest", callback=parse.profile, metavar="N|NxCxHxW", help="Largest batch.")
@click.option("--workspace", type=click.IntRange(min=1), metavar="MIB", help="TensorRT: memory that kernels may use while running.")
@click.option("--optimization-level", type=click.IntRange(0, 5), metavar="0..5", help="TensorRT: how long to look for fast kernels.")
@click.option("--timing-cache", type=PATH, metavar="FILE", help="Standard TensorRT: kernel timings, read and written.")
@click.option("--version-compatible", is_flag=True, help="TensorRT: a plan that newer versions open too.")
@click.option("--hardware-compatible", is_flag=True, help="TensorRT: a plan for other GPUs, Ampere and newer.")
@click.option("--plugins", is_flag=True, help="Standard TensorRT: our kernels as plugins. Experimental: never run so far.")
@click.option("--strict", is_flag=True, help="Fail if the engine's layers do not have the precision asked for.")
@options.bit_depth
@options.stop_on_error
@foreign
@device
@threads
@output("engine.plan", "Where to write the plan; what it is goes beside it as .json.")
def command(
    model: Path,
    precision: PrecisionName | None,
    ranges: Path | None,
    images: Path | None,
    bit_depth: int | None,
    stop_on_error: bool,
    keep: tuple[str, ...],
    recipe: str | None,
    backend: str,
    smallest: tuple[int, ...] | None,
    usual: tuple[int, ...] | None,
    largest: tuple[int, ...] | None,
    workspace: int | None,
    optimization_level: int | None,
    timing_cache: Path | None,
    version_compatible: bool,
    hardware_compatible: bool,
    plugins: bool,
    strict: bool,
    device: int,
    threads: int | None,
    output: Path,
    said: Foreign,
) -> None:
    """Build an engine from MODEL (default model.onnx): a plan, and beside it a JSON that says what it is.

    After the build the engine's layers are read and the precision found is printed; where this machine can run the engine, it
    runs once against ONNX Runtime on the model it came from, and the share of pixels that change class is printed.

    \b
    rtformer-deploy build-engine --fp16
    rtformer-deploy build-engine model.onnx --backend tensorrt-rtx --fp16 --output slim.plan
    """
    from ..commands.build_engine import BuildRequest, build_to_file
    from .show import progress_bar

    request = BuildRequest(
        model=model,
        output=output,
        backend=backend,
        precision=precision,
        ranges=ranges,
        images=images,
        bit_depth=bit_depth,
        stop_on_error=stop_on_error,
        keep=keep,
        recipe=recipe,
        profile=(smallest, usual, largest),
        workspace_mib=workspace,
        optimization_level=optimization_level,
        timing_cache=timing_cache,
        version_compatible=version_compatible,
        hardware_compatible=hardware_compatible,
        plugins=plugins,
        strict=strict,
        device=device,
        threads=threads,
        said=said,
    )
    with progress_bar() as progress:
        build_to_file(request, click.echo, progress)
