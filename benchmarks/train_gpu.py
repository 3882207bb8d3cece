"""Trains Slim for CamVid on a GPU at 360x480 and writes FP16 weights: in minutes what two CPU cores do in hours.

    python benchmarks/train_gpu.py --root CAMVID [--output run-gpu] [--json FILE] [any option of `rtformer-deploy train`]

It is `rtformer-deploy train` with the options of the shipped run, batches of 16 views of 360x480 and a learning rate for them, computed in
bfloat16 (autocast) and channels-last. Options of `train` that are given here come last and win, so

    python benchmarks/train_gpu.py --root CAMVID --fold 1/4 --boundary 2 --steps 6000

trains another one, and `--resume` goes on after a break. The weights are in the output folder, named as the recipe.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import click
import harness
import torch
from harness import Json
from slim_camvid import OPTIONS, RECIPE

from rtformer_deploy.cli.train import command
from rtformer_deploy.errors import UsageError
from rtformer_deploy.training.log import read_log

#: What differs from the run on a CPU: whole frames, larger batches, and a rate that is larger with them.
ON_GPU = {"batch": 16, "crop": (360, 480), "rate": 2e-3, "warmup": 500, "steps": 12_000, "evaluate_every": 1000, "device": "cuda"}
_SIZES = ("size", "crop", "final_crop")


def words_of(values: Json) -> list[str]:
    """Fields of TrainOptions -> the words of the command line that mean them."""
    words: list[str] = []
    for parameter in command.params:
        if parameter.name in values:
            value = values[parameter.name]
            parts = [str(part) for part in (value if isinstance(value, tuple) else (value,))]
            words += [max(parameter.opts, key=lambda name: name.startswith("--"))]
            words += ["x".join(parts)] if parameter.name in _SIZES else parts
    return words


def train(arguments: argparse.Namespace, more: Sequence[str]) -> Json:
    """The whole run -> its figures: pace, last scores."""
    torch.backends.cudnn.benchmark = True  # every batch has one size
    words = ["--recipe", RECIPE, "--root", str(arguments.root), "--output", str(arguments.output), *words_of(OPTIONS | ON_GPU), *more]
    try:
        command.main(words, "train_gpu.py", standalone_mode=False)
    except click.UsageError as error:
        raise UsageError(error.format_message(), "See: rtformer-deploy train --help") from error
    records = read_log(arguments.output / "log.jsonl")
    start = next(record for record in reversed(records) if record["kind"] == "start")
    pace = next(record for record in reversed(records) if record["kind"] == "step")
    shipped = next(record for record in reversed(records) if record["kind"] == "shipped")
    options = start["options"]
    figures = {
        "recipe": start["recipe"],
        "frames": start["frames"],
        "options": options,
        "device": options["device"] if options["device"] == "cpu" else torch.cuda.get_device_name(options["device"]),
        "images_per_second": round((options["final_batch"] or options["batch"]) / pace["seconds_per_step"], 1),
        "scores": shipped["scores"],
    }
    return harness.stamped("training Slim on CamVid on a GPU: images per second, scores of the FP16 weights", figures)


def parse(words: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    parser = harness.command_line(__doc__)
    parser.add_argument("--root", type=Path, required=True, help="the CamVid folder")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("run-gpu"), help="write checkpoint, log and weights here [default: run-gpu]"
    )
    return parser.parse_known_args(words)


def main(words: Sequence[str] | None = None) -> int:
    arguments, more = parse(words)
    return 1 if harness.run_script(arguments.json, lambda: train(arguments, more)) is None else 0


if __name__ == "__main__":
    raise SystemExit(main())
