"""`rtformer-deploy train`: a dataset to a trained network."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import click

from ..errors import MissingPackageError, UsageError
from . import known, parse
from .options import PATH, bit_depth
from .terminal import echo


@click.command(context_settings={"show_default": True})
@click.option("--recipe", "recipe_name", type=known.RECIPE, required=True, metavar="NAME", help="Train this recipe, by name or TOML file.")
@click.option("--root", type=PATH, required=True, metavar="DIR", help="Read the dataset from this folder.")
@click.option(
    "--dataset",
    type=known.DATASET,
    default=None,
    metavar="NAME|FILE",
    help="Train on another dataset than the recipe's, by name or TOML file.",
)
@click.option("-o", "--output", type=PATH, required=True, metavar="DIR", help="Write checkpoint, log, plot and weights into this folder.")
@click.option("--size", callback=parse.size(), metavar="HxW", help="Score the network at this input size [default: the recipe's].")
@click.option("--steps", type=click.IntRange(min=1), default=10_000, help="Train for so many steps in all.")
@click.option("--batch", type=click.IntRange(min=2), default=8, help="Take so many views in a step.")
@click.option("--crop", callback=parse.size(), metavar="HxW", help="Cut random views of this size [default: --size].")
@click.option("--final-share", type=parse.Number(0, 1), default=0.0, help="Train this share of the steps, at the end, with the next two.")
@click.option("--final-crop", callback=parse.size(), metavar="HxW", help="Cut views of this size then [default: --size].")
@click.option("--final-batch", type=click.IntRange(min=2), default=None, help="Take so many views in a step then [default: --batch].")
@click.option("--lr", "rate", type=parse.Number(min=0, min_open=True), default=1e-3, help="Set the peak learning rate of AdamW.")
@click.option("--warmup", type=click.IntRange(min=0), default=300, help="Warm up linearly for so many steps.")
@click.option("--power", type=parse.Number(min=0), default=0.9, help="Set the power of the polynomial decay.")
@click.option("--weight-decay", type=parse.Number(min=0), default=0.05, help="Decay the kernels; norms and biases have none.")
@click.option("--clip", type=parse.Number(min=0), default=5.0, help="Clip the gradient to this norm; 0: any.")
@click.option("--drop-path", type=parse.Number(0, 1, max_open=True), default=None, help="Set the stochastic depth [default: the recipe's].")
@click.option("--bn-momentum", type=parse.Number(0, 1), default=0.1, help="Set how far a batch moves the running statistics.")
@click.option("--ema", type=parse.Number(0, 1, max_open=True), default=0.999, help="Set the decay of the averaged weights.")
@click.option("--aux", type=parse.Number(min=0), default=None, help="Weigh each auxiliary loss [default: the network's].")
@click.option("--aux-head", "heads", multiple=True, metavar="NAME", help="Add an auxiliary head: context or boundary. Repeat it for both.")
@click.option("--boundary", type=parse.Number(min=0), default=0.0, help="Count pixels near a boundary of classes so much more.")
@click.option("--distill", type=parse.Number(min=0), default=0.0, help="Weigh the loss that compares the network with its own average.")
@click.option("--ohem", type=parse.Number(0, 1, min_open=True, max_open=True), default=None, help="Train on pixels below this probability.")
@click.option("--balance", type=parse.Number(), default=0.0, help="Weigh classes by 1 / ln(BALANCE + share), as 1.02; 0: evenly.")
@click.option("--scale", type=(parse.Number(), parse.Number()), default=(0.5, 2.0), help="Zoom at random in this range.")
@click.option("--colour", type=parse.Number(0, 1, max_open=True), default=0.4, help="Set the strength of the colour changes.")
@click.option("--rare", type=parse.Number(0, 1), default=0.0, help="Make this share of the views around rare classes.")
@click.option(
    "--paste", "--mix", type=parse.Number(0, 1), default=0.0, help="Paste another view's rare classes into this share of the views."
)
@click.option("--hold-out", default=None, metavar="PREFIX", help="Score, not train on, the last third of the training frames named so.")
@click.option("--fold", default=None, metavar="K/N", help="Score, not train on, stretch K of N of every drive, or of DRIVE:K/N.")
@click.option("--also", multiple=True, metavar="SPLIT", help="Train on this split too, as val. Repeat it for more.")
@bit_depth
@click.option("--init", type=PATH, default=None, metavar="FILE", help="Begin with these weights: what fits is loaded.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in --output.")
@click.option("--seed", type=parse.SEED, default=0, help="Seed weights, order and augmentation.")
@click.option("--device", default="auto", help="Train on cpu, cuda or cuda:1; auto takes a GPU if there is one.")
@click.option("--threads", type=click.IntRange(min=1), default=None, metavar="N", help="Limit the CPU threads [default: all cores].")
@click.option("--evaluate-every", type=click.IntRange(min=1), default=1000, metavar="STEPS", help="Score after so many steps.")
@click.option("--save-seconds", type=parse.Number(min=0), default=300.0, help="Write a checkpoint after so many seconds.")
def command(recipe_name: str, dataset: str | None, device: str, resume: bool, output: Path, **values: Any) -> None:
    """Train a recipe's network on a dataset; Ctrl-C leaves a checkpoint that --resume goes on from."""
    from ..formats.recipe import load_recipe

    try:
        from ..commands.train import train, with_dataset
        from ..training.options import TrainOptions
        from ..training.run import pick_device
    except ModuleNotFoundError as error:
        raise MissingPackageError(error.name or "torch", "export", "train") from error
    from .training_progress import Display

    if resume and values["init"] is not None:
        raise UsageError("--resume and --init cannot be combined: a resumed run has its weights.")
    recipe = with_dataset(load_recipe(recipe_name), dataset)
    options = TrainOptions(output=output, device=pick_device(device), **values)
    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: signals.append(number) if not signals else signal.default_int_handler(number, None))
    with Display(options.steps) as display:

        def progress(phase: str, done: int, total: int) -> None:
            if signals:  # nothing is trained yet
                raise KeyboardInterrupt
            display.show_reading(phase, done, total)

        last = train(recipe, options, resume=resume, watch=display, stop=lambda: bool(signals), say=display.say, progress=progress)
    if last["kind"] == "stopped":
        echo(f"Stopped after step {last['step']}; go on with --resume.", err=True)
        raise SystemExit(130)
