"""`rtformer-deploy import-weights`: PaddleSeg or PyTorch weights to safetensors."""

from __future__ import annotations

from pathlib import Path

import click

from . import known
from .options import PATH
from .terminal import echo


@click.command("import-weights")
@click.argument("file", type=PATH)
@click.option("--recipe", type=known.RECIPE, required=True, metavar="NAME", help="Name the recipe that the weights were trained with.")
@click.option("--num-classes", type=click.IntRange(1, 255), metavar="N", help="Set how many classes, if not the recipe's.")
@click.option("--half", is_flag=True, help="Store FP16, half the size.")
@click.option(
    "-o",
    "--output",
    type=PATH,
    metavar="FILE",
    help="Write here (.safetensors.xz: compressed) [default: FILE's name in this folder].",
)
def command(file: Path, recipe: str, num_classes: int | None, half: bool, output: Path | None) -> None:
    """Read FILE (.pdparams, .pth, .bin, .safetensors), check every key and shape against the recipe's network, write safetensors.

    Checkpoints of the network's authors and of PaddleSeg are translated to its keys.

    A .pdparams file is a pickle: it is read without running anything in it, and one that holds more than arrays is refused.
    Some options of a network change no shape, so they cannot be told from the weights: name the right recipe.
    """
    from ..commands.kinds import WEIGHTS
    from ..commands.outputs import Output, check_outputs, file_inputs
    from ..formats.safetensors_file import stem_of
    from ..machine import require

    output = output or Path(f"{stem_of(file)}.safetensors")
    check_outputs([Output(output, WEIGHTS)], file_inputs(file, recipe))
    require("torch", "export", "import-weights")
    from ..commands.import_weights import import_weights

    imported = import_weights(file, recipe, num_classes, half)
    imported.save(output)
    for note in imported.notes:
        echo(note)
    echo(f"{output}: {imported.parameters:,} parameters, {imported.classes} classes, {imported.recipe}.")
