"""`rtformer-deploy export`: network and weights to an ONNX model that was checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import known, parse
from .options import output
from .terminal import echo


@click.command("export")
@click.option(
    "--variant",
    type=known.VARIANT,
    metavar="NAME",
    help="Take the recipe of this network (slim, base, ...), with weights if there are any.",
)
@click.option("--recipe", type=known.RECIPE, metavar="NAME", help="Export this recipe, by name or TOML file.")
@click.option("--weights", type=click.Path(path_type=Path), metavar="FILE", help="Load a .safetensors(.xz), .pdparams, .pth or .bin file.")
@click.option("--num-classes", type=click.IntRange(1, 255), metavar="N", help="Set how many classes, if not the recipe's.")
@click.option("--random-weights", is_flag=True, help="Use random weights: for a dry run, or to measure speed.")
@click.option("--seed", type=parse.SEED, default=0, show_default=True, help="Seed the random weights.")
@click.option("--size", callback=parse.size(least=64), metavar="HxW", help="Set the input size [default: the recipe's].")
@click.option(
    "--batch", callback=parse.batch, default="1", show_default=True, metavar="N|dynamic", help="Set how many frames one input holds."
)
@click.option(
    "--head",
    type=click.Choice(["lowres", "logits", "labels"]),
    default="lowres",
    show_default=True,
    help="End in the network's small logits, full-size logits, or uint8 labels.",
)
@click.option("--opset", type=click.IntRange(18, 23), default=20, show_default=True, help="Set the ONNX operator set.")
@click.option("--portable", is_flag=True, help="Write the attention as plain operators, for tools that do not run ONNX functions.")
@output("model.onnx", "Write the model here.")
def command(**values: Any) -> None:
    """Write an ONNX model of a network, with the attention as recognisable nodes of the domain `rtformer`, simplified and
    checked: ONNX Runtime must give what PyTorch gives, to 1e-4 of the largest logit.

    The attention's nodes are ONNX functions, which ONNX Runtime and TensorRT run. For other tools (OpenVINO's own reader, OpenCV) add
    --portable.
    """
    if values["variant"] is None and values["recipe"] is None and values["weights"] is None:
        raise click.UsageError("Name what to export: --variant NAME, --recipe NAME, or --weights FILE whose metadata names its recipe.")
    from ..commands.export import ExportRequest, export_to_file

    request = ExportRequest(**values)
    parity = export_to_file(request, lambda line: echo(line, err=True)).parity
    flips = f", {parity.flips:.4%} of the pixels change class by rounding" if parity.flips else ", no pixel changes class"
    reference = "PyTorch" if parity.noise is None else "PyTorch in FP64"
    bound = "" if request.head == "labels" else f" to {parity.difference:.1e} of the largest logit"
    echo(f"{request.output}: agrees with {reference}{bound}{flips}.")
    if parity.noise is not None:
        echo(
            f"Warning: PyTorch's own FP32 is {parity.noise:.1e} of the largest logit away from FP64, so rounding is large in this network. "
            "FP16 and INT8 will show it: look at the pixels that change class after build-engine.",
            err=True,
        )
