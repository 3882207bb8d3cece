"""`rtformer-deploy train`: a dataset to a trained network."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import click

from ..errors import MissingPackageError, UsageError
from . import parse
from .options import PATH, bit_depth


@click.command(context_settings={"show_default": True})
@click.option("--recipe", "recipe_name", required=True, metavar="NAME", help="Recipe to train, or its TOML file.")
@click.option("--root", type=PATH, required=True, metavar="DIR", help="The dataset's folder.")
@click.option("--dataset", default=None, metavar="NAME|FILE", help="Another dataset than the recipe's: its name or TOML file.")
@click.option("-o", "--output", type=PATH, required=True, metavar="DIR", help="Folder for checkpoint, log, plot and weights.")
@click.option("--size", callback=parse.size(), metavar="HxW", help="Input size of the network when it is scored [default: the recipe's].")
@click.option("--steps", type=click.IntRange(min=1), default=10_000, help="Steps in all.")
@click.option("--batch", type=click.IntRange(min=2), default=8, help="Views in a step.")
@click.option("--crop", callback=parse.size(), metavar="HxW", help="Size of the random views [default: --size].")
@click.option("--final-share", type=click.FloatRange(0, 1), default=0.0, help="Share of the steps, at the end, with the next two.")
@click.option("--final-crop", callback=parse.size(), metavar="HxW", help="Size of the views then [default: --size].")
@click.option("--final-batch", type=click.IntRange(min=2), default=None, help="Batch then [default: --batch].")
@click.option("--lr", "rate", type=click.FloatRange(min=0, min_open=True), default=1e-3, help="Peak learning rate of AdamW.")
@click.option("--warmup", type=click.IntRange(min=0), default=300, help="Steps of linear warm-up.")
@click.option("--power", type=float, default=0.9, help="Power of the polynomial decay.")
@click.option("--weight-decay", type=click.FloatRange(min=0), default=0.05, help="Decay of the kernels; norms and biases have none.")
@click.option("--clip", type=click.FloatRange(min=0), default=5.0, help="Largest norm of the gradient; 0: any.")
@click.option("--drop-path", type=click.FloatRange(0, 1, max_open=True), default=None, help="Stochastic depth [default: the recipe's].")
@click.option("--bn-momentum", type=click.FloatRange(0, 1), default=0.1, help="How far a batch moves the running statistics.")
@click.option("--ema", type=click.FloatRange(0, 1, max_open=True), default=0.999, help="Decay of the averaged weights.")
@click.option("--aux", type=click.FloatRange(min=0), default=0.4, help="Share of the auxiliary head's loss.")
@click.option(
    "--ohem", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=None, help="Train on pixels below this probability."
)
@click.option("--balance", type=click.FloatRange(min=0), default=0.0, help="Weigh classes by 1 / ln(BALANCE + share), as 1.02; 0: evenly.")
@click.option("--scale", type=(float, float), default=(0.5, 2.0), help="Range of the random zoom.")
@click.option("--colour", type=click.FloatRange(0, 1, max_open=True), default=0.4, help="Strength of the colour changes.")
@click.option("--rare", type=click.FloatRange(0, 1), default=0.0, help="Share of the views made around rare classes.")
@click.option(
    "--paste", "--mix", type=click.FloatRange(0, 1), default=0.0, help="Share of the views with another view's rare classes pasted in."
)
@click.option("--hold-out", default=None, metavar="PREFIX", help="Score, not train on, the last third of the training frames named so.")
@bit_depth
@click.option("--init", type=PATH, default=None, metavar="FILE", help="Weights to begin with: what fits is loaded.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in --output.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Seed of weights, order and augmentation.")
@click.option("--device", default="auto", help="cpu, cuda, cuda:1; auto takes a GPU if there is one.")
@click.option("--threads", type=click.IntRange(min=1), default=None, metavar="N", help="CPU threads [default: all cores].")
@click.option("--evaluate-every", type=click.IntRange(min=1), default=1000, metavar="STEPS", help="Steps between two scorings.")
@click.option("--save-seconds", type=click.FloatRange(min=0), default=300.0, help="Time between checkpoints.")
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
    asked: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: asked.append(number) if not asked else signal.default_int_handler(number, None))
    with Display(options.steps) as display:
        last = train(recipe, options, resume=resume, watch=display, stop=lambda: bool(asked), say=display.say)
    if last["kind"] == "stopped":
        click.echo(f"Stopped after step {last['step']}; go on with --resume.", err=True)
        raise SystemExit(130)
