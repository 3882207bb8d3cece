"""Images per second of training: loading alone, compute alone, and both together, on CamVid with Slim.

    python benchmarks/train.py --root CAMVID [--crop 256x256] [--batch 8] [--steps 20] [--threads N] [--json FILE]

Loading makes the batches that `train` makes (decoded frames kept in memory) in the one thread that it uses on a CPU; compute runs full
training steps on a batch that is there already; together is the loop itself. The first steps of each are not counted.
Together should be near compute: then the loader is not what limits.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import harness
import torch
from harness import Json

from rtformer_deploy.formats.recipe import load_recipe
from rtformer_deploy.training.options import TrainOptions
from rtformer_deploy.training.run import TrainingRun, pick_device
from rtformer_deploy.training.splits import open_splits

WARMUP = 3


def median_seconds(step: Callable[[], object], steps: int) -> float:
    """The median seconds of a step, after the warm-up."""
    times = []
    for number in range(WARMUP + steps):
        began = time.perf_counter()
        step()
        if number >= WARMUP:
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def measure(options: TrainOptions, steps: int) -> dict[str, float]:
    """The seconds of a step: loading, compute, together."""
    recipe = load_recipe("rtformer-slim-camvid")
    run = TrainingRun(recipe, options, *open_splits(recipe.dataset, options.root))
    for index in range(len(run.batches.frames.dataset)):
        run.batches.frames[index]  # decoded once, as after the first epoch
    numbers = itertools.count()
    loading = median_seconds(lambda: run.batches.batch(next(numbers)), steps)
    views, labels = run.batches.batch(0)
    compute = median_seconds(lambda: run.step(views, labels), steps)
    with contextlib.closing(run.batches.ahead(0, WARMUP + steps, 1)) as ahead:
        together = median_seconds(lambda: run.step(*next(ahead)), steps)
    return {"loading": loading, "compute": compute, "together": together}


def compare(arguments: argparse.Namespace) -> Json:
    """The whole run."""
    with tempfile.TemporaryDirectory() as folder:
        options = TrainOptions(
            root=arguments.root, output=Path(folder), size=(360, 480), crop=arguments.crop, batch=arguments.batch, balance=1.1, rare=0.35,
            paste=0.2, threads=arguments.threads, device=pick_device(arguments.device),
        )  # fmt: skip
        seconds = measure(options, arguments.steps)
    speeds = {name: round(options.batch / value, 2) for name, value in seconds.items()}
    for name, value in speeds.items():
        print(f"{name:10} {value:8.1f} images a second")
    height, width = arguments.crop
    figures = {
        "crop": f"{height}x{width}",
        "batch": arguments.batch,
        "steps": arguments.steps,
        "device": options.device if options.device == "cpu" else torch.cuda.get_device_name(),
        "threads": torch.get_num_threads(),
        "images_per_second": speeds,
        "seconds_per_step": round(seconds["together"], 4),
    }
    return harness.stamped("training Slim on CamVid: images per second of the loader, of the steps, and of both together", figures)


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = harness.command_line(__doc__)
    harness.add_threads(parser)
    parser.add_argument("--root", type=Path, required=True, help="the CamVid folder")
    parser.add_argument("--crop", type=harness.size_of, default=(256, 256), metavar="HxW")
    parser.add_argument("--batch", type=harness.positive, default=8)
    parser.add_argument("--steps", type=harness.positive, default=20)
    parser.add_argument("--device", default="auto")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    arguments = parse(words)
    return 1 if harness.run_script(arguments.json, lambda: compare(arguments)) is None else 0


if __name__ == "__main__":
    raise SystemExit(main())
