"""Images per second of training: loading alone, compute alone, and both together, on CamVid with Slim.

    python benchmarks/train.py --root CAMVID [--crop 256x256] [--batch 8] [--steps 20] [--threads N] [--json FILE] [--variants NAME ...]

With --variants it also measures steps that differ from those of `train`, side by side: each in a process of its own, called in turn. A
name is one of the table VARIANTS or a size of views, as 360x480, of which a batch holds about as many pixels as the others.

Loading makes the batches that `train` makes (decoded frames kept in memory) in the one thread that it uses on a CPU; compute runs full
training steps on a batch that is there already; together is the loop itself. The first steps of each are not counted.
Together should be near compute: then the loader is not what limits.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import harness
import torch
from harness import Json
from slim_camvid import OPTIONS, RECIPE

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


def run_of(arguments: argparse.Namespace, folder: Path, crop: harness.Size, batch: int) -> TrainingRun:
    """A training run that nothing is written of."""
    changes = {"root": arguments.root, "output": folder, "crop": crop, "batch": batch, "threads": arguments.threads}
    recipe, options = load_recipe(RECIPE), TrainOptions(**(OPTIONS | changes), device=pick_device(arguments.device))
    return TrainingRun(recipe, options, *open_splits(recipe.dataset, options.root))


def measure(run: TrainingRun, steps: int) -> dict[str, float]:
    """The seconds of a step: loading, compute, together."""
    for index in range(len(run.batches.frames.dataset)):
        run.batches.frames[index]  # decoded once, as after the first epoch
    numbers = itertools.count()
    loading = median_seconds(lambda: run.batches.batch(next(numbers)), steps)
    views, labels = run.batches.batch(0)
    compute = median_seconds(lambda: run.step(views, labels), steps)
    with contextlib.closing(run.batches.ahead(0, WARMUP + steps, 1)) as ahead:
        together = median_seconds(lambda: run.step(*next(ahead)), steps)
    return {"loading": loading, "compute": compute, "together": together}


def channels_first(run: TrainingRun) -> None:
    """Everything as PyTorch lays it out by default."""
    for value in run.state.network.parameters():
        value.data = value.data.contiguous()
    before = run.normalise
    setattr(run, "normalise", lambda views: before(views).contiguous())  # noqa: B010 - a method is replaced


def bfloat16(run: TrainingRun) -> None:
    """Convolutions and products in bfloat16, as on a GPU."""
    setattr(run, "_autocast", lambda: torch.autocast(run.device.type, torch.bfloat16))  # noqa: B010


def compiled(run: TrainingRun) -> None:
    """The network through torch.compile, which takes minutes before the first step."""
    run.state.network.compile()


#: variant -> what it changes
VARIANTS: dict[str, Callable[[TrainingRun], None]] = {
    "as train does": lambda run: None,
    "channels-first": channels_first,
    "bfloat16": bfloat16,
    "compiled": compiled,
}


def work(arguments: argparse.Namespace) -> None:
    """The life of a variant's process: every call is one step on the same batch."""
    given = argparse.Namespace(**json.loads((arguments.folder / "arguments.json").read_text()))
    given.root = Path(given.root)
    crop, batch = tuple(given.crop), given.batch
    if arguments.worker not in VARIANTS:
        crop = harness.size_of(arguments.worker)
        batch = max(2, round(batch * given.crop[0] * given.crop[1] / (crop[0] * crop[1])))
    run = run_of(given, arguments.folder, crop, batch)
    VARIANTS.get(arguments.worker, VARIANTS["as train does"])(run)
    views, labels = run.batches.batch(0)

    def step(_: int) -> Json:
        began = time.perf_counter()
        run.step(views, labels)
        return {"megapixels_per_second": views.size / 3e6 / (time.perf_counter() - began)}

    harness.answer_calls(step)


def side_by_side(arguments: argparse.Namespace, folder: Path) -> Json:
    """Every variant -> the median of its megapixels a second, and that as a multiple of the first one's."""
    keys = ("root", "crop", "batch", "threads", "device")
    (folder / "arguments.json").write_text(json.dumps({key: getattr(arguments, key) for key in keys}, default=str))
    answers = harness.call_in_turn(__file__, folder, arguments.variants, 1, arguments.steps, warmup=WARMUP)
    speeds = {name: statistics.median(each["megapixels_per_second"] for each in some) for name, some in answers.items()}
    first = next(iter(speeds.values()))
    rows = {name: {"megapixels_per_second": round(speed, 3), "ratio": round(speed / first, 3)} for name, speed in speeds.items()}
    for name, row in rows.items():
        print(f"{name:16} {row['megapixels_per_second']:8.3f} megapixels a second, {row['ratio']:.2f}")
    return rows


def compare(arguments: argparse.Namespace) -> Json:
    """The whole run."""
    with tempfile.TemporaryDirectory() as folder:
        variants = {"variants": side_by_side(arguments, Path(folder))} if arguments.variants else {}
        run = run_of(arguments, Path(folder), arguments.crop, arguments.batch)
        seconds = measure(run, arguments.steps)
    speeds = {name: round(arguments.batch / value, 2) for name, value in seconds.items()}
    for name, value in speeds.items():
        print(f"{name:10} {value:8.1f} images a second")
    height, width = arguments.crop
    figures = {
        "crop": f"{height}x{width}",
        "batch": arguments.batch,
        "steps": arguments.steps,
        "device": "cpu" if run.device.type == "cpu" else torch.cuda.get_device_name(),
        "threads": torch.get_num_threads(),
        "images_per_second": speeds,
        "seconds_per_step": round(seconds["together"], 4),
    }
    return harness.stamped(
        "training Slim on CamVid: images per second of the loader, of the steps, and of both together", figures | variants
    )


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = harness.command_line(__doc__)
    harness.add_threads(parser)
    harness.add_worker(parser)
    parser.add_argument("--root", type=Path, help="the CamVid folder")
    parser.add_argument("--crop", type=harness.size_of, default=(256, 256), metavar="HxW")
    parser.add_argument("--batch", type=harness.positive, default=8)
    parser.add_argument("--steps", type=harness.positive, default=20)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--variants", nargs="+", default=[], type=variant, metavar="NAME", help=f"{', '.join(VARIANTS)}, or HxW")
    arguments = parser.parse_args(words)
    if arguments.root is None and arguments.worker is None:
        parser.error("--root is missing: the CamVid folder")
    return arguments


def variant(text: str) -> str:
    """The name of a variant, or a size of views."""
    if text not in VARIANTS:
        harness.size_of(text)
    return text


def main(words: Sequence[str] | None = None) -> int:
    arguments = parse(words)
    if arguments.worker is not None:
        work(arguments)
        return 0
    return 1 if harness.run_script(arguments.json, lambda: compare(arguments)) is None else 0


if __name__ == "__main__":
    raise SystemExit(main())
