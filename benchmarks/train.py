"""Images per second of training: loading alone, compute alone, and both together, on CamVid with Slim.

    python benchmarks/train.py --root CAMVID [--crop 256x256] [--batch 8] [--steps 20] [--threads N] [--json FILE]

Loading makes the batches that `train` makes (decoded frames kept in memory) in the one thread that it uses on a CPU; compute runs full
training steps on a batch that is there already; together is the loop itself. The first steps of each are not counted.
Together should be near compute: then the loader is not what limits.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch

from rtformer_deploy.commands.train import open_splits
from rtformer_deploy.formats.recipe import load_recipe
from rtformer_deploy.machine import environment
from rtformer_deploy.training.options import TrainOptions
from rtformer_deploy.training.run import TrainingRun, pick_device

WARMUP = 3


def medians(step: Callable[[], object], steps: int) -> float:
    """The median seconds of a step, after the warm-up."""
    times = []
    for number in range(WARMUP + steps):
        began = time.perf_counter()
        step()
        if number >= WARMUP:
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def measure(options: TrainOptions, steps: int) -> dict[str, float]:
    """Images per second: loading, compute, together; and the loader's share of its time that is left over."""
    recipe = load_recipe("rtformer-slim-camvid")
    run = TrainingRun(recipe, options, *open_splits(recipe.dataset, options.root, None))
    for index in range(len(run.batches.frames.dataset)):
        run.batches.frames[index]  # decoded once, as after the first epoch
    numbers = iter(range(10**6))
    loading = medians(lambda: run.batches.batch(next(numbers)), steps)
    views, labels = run.batches.batch(0)
    compute = medians(lambda: run.step(views, labels), steps)
    ahead = run.batches.ahead(0, WARMUP + steps, 1)
    together = medians(lambda: run.step(*next(ahead)), steps)
    ahead.close()
    speeds = {"loading": loading, "compute": compute, "together": together}
    return {name: options.batch / seconds for name, seconds in speeds.items()} | {"seconds_per_step": together}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="the CamVid folder")
    parser.add_argument("--crop", default="256x256")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    height, width = (int(number) for number in arguments.crop.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        options = TrainOptions(
            root=arguments.root, output=Path(folder), size=(360, 480), crop=(height, width), batch=arguments.batch, balance=1.1, rare=0.35,
            paste=0.2, threads=arguments.threads, device=pick_device(arguments.device),
        )  # fmt: skip
        found = measure(options, arguments.steps)
    report = {
        "crop": arguments.crop,
        "batch": arguments.batch,
        "steps": arguments.steps,
        "device": options.device if options.device == "cpu" else torch.cuda.get_device_name(),
        "threads": torch.get_num_threads(),
        "images_per_second": {name: round(found[name], 2) for name in ("loading", "compute", "together")},
        "seconds_per_step": round(found["seconds_per_step"], 4),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": environment(),
    }
    for name, value in report["images_per_second"].items():
        print(f"{name:10} {value:8.1f} images a second")
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
