"""What each idea for training gives on a fold: a short run with it and one without, from the same weights, with the same batches.

    python benchmarks/train_ideas.py --root CAMVID --folder WORK [--folds 1/4 ...] [--ideas NAME ...] [--json FILE]

On every fold a base run is trained from random weights (--base-steps) without the fold's stretch of each drive. Each idea then goes on
from the averaged weights of that run for --steps steps with the learning rate decaying to nothing, and is scored on the held-out stretch;
val is not looked at. Going on from one base tells more than short runs from random weights: those reward what learns fast at first. The
baseline is run with several seeds, which shows how much chance alone moves the figures.

Whatever is done lies in --folder, with a checkpoint every minute: the same command again goes on where it was stopped. The JSON is
written after each run. Larger views get fewer steps, so that every idea sees as many pixels.

On two cores two commands of one thread, each with a fold of its own, do more than one with two threads. They may share --folder; a third
one that names both folds then finds every run done, and writes the JSON of all.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import harness
import safetensors.torch
from harness import Json
from slim_camvid import OPTIONS, RECIPE

from rtformer_deploy.commands.train import train
from rtformer_deploy.errors import UsageError
from rtformer_deploy.files import make_folder, write_atomic
from rtformer_deploy.formats.folds import Fold
from rtformer_deploy.formats.recipe import Recipe, load_recipe
from rtformer_deploy.training.checkpoint import read
from rtformer_deploy.training.log import read_log
from rtformer_deploy.training.options import TrainOptions, plain
from rtformer_deploy.training.run import pick_device

#: idea -> what it changes
IDEAS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "boundary weights": {"boundary": 2.0},
    "distillation": {"distill": 1.0},
    "larger views": {"crop": (360, 480), "batch": 3},
    "ohem": {"ohem": 0.7},
    "boundary head": {"heads": ("boundary",)},
    "baseline, seed 1": {"seed": 1},
    "context head": {"heads": ("context",)},
    "stronger balance": {"balance": 1.02},
    "wider zooms": {"scale": (0.5, 2.0)},
    "more pasted": {"paste": 0.6},
    "nothing pasted": {"paste": 0.0},
    "nearer zooms": {"scale": (1.0, 2.5)},
}
#: What the figures name apart: where the shipped weights are worst.
WATCHED = ("Pole", "Fence", "SignSymbol", "Pedestrian")
BASE = {"rate": 1.5e-3, "warmup": 150, "ema": 0.995}
_MADE_WITH = ("steps", "batch", "crop", "fold", "rate", "warmup", "ema")  # what an argument or an edit of this file may change
BRANCH = {"rate": 5e-4, "warmup": 30, "ema": 0.98}


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """The driver was asked to stop; what was done is in the folder."""


@dataclasses.dataclass(frozen=True, slots=True)
class Driver:
    """Where and how the runs are made."""

    arguments: argparse.Namespace
    recipe: Recipe
    stop: Callable[[], bool]

    def options(self, output: Path, fold: str, **changes: Any) -> TrainOptions:
        """The options of one run; `changes` win."""
        arguments = self.arguments
        fixed = {"root": arguments.root, "output": output, "fold": fold, "threads": arguments.threads, "device": arguments.device}
        return TrainOptions(**(OPTIONS | {"save_seconds": 60.0, "evaluate_every": 1_000_000} | changes | fixed))

    def run(self, options: TrainOptions) -> Json:
        """Makes a run, or goes on with it, or does nothing if it is done -> its figures. Raises Stopped."""
        log = options.output / "log.jsonl"
        resume = (options.output / "checkpoint.safetensors").exists()
        if not resume:
            log.unlink(missing_ok=True)  # of a run that was killed before its first checkpoint
        records = read_log(log) if resume and log.exists() else []
        if not _is_whole(records, options):
            pace = Pace(options.output / "pace.json", options.batch, resume)
            last = train(self.recipe, options, resume=resume, watch=pace, stop=self.stop)
            pace.write()
            if last["kind"] == "stopped":
                raise Stopped
            records = read_log(log)
        return figures_of(records, *_pace(options.output / "pace.json"))

    def base(self, fold: str) -> tuple[Path, Json]:
        """The fold's base run -> the file of its averaged weights, in full precision and with the auxiliary head, and its figures."""
        output = self.place(fold) / "base"
        options = self.options(output, fold, steps=self.arguments.base_steps, **BASE)
        figures = self.run(options)
        weights = output / "average.safetensors"
        if not weights.exists():
            tensors, _ = read(output / "checkpoint.safetensors")
            averages = {name.removeprefix("average/"): value for name, value in tensors.items() if name.startswith("average/")}
            write_atomic(weights, safetensors.torch.save(averages))
        return weights, figures

    def idea(self, name: str, fold: str, weights: Path) -> Json:
        """An idea's run on a fold -> its figures."""
        changes = IDEAS[name]
        options = self.options(self.place(fold) / name.replace(", ", "-").replace(" ", "-"), fold, init=weights, **BRANCH | changes)
        return self.run(dataclasses.replace(options, steps=_steps(options, self.arguments.steps)))

    def place(self, fold: str) -> Path:
        """The folder of a fold's runs."""
        folder: Path = self.arguments.folder / f"fold-{fold.replace('/', '-of-')}"
        make_folder(folder)
        return folder


def _steps(options: TrainOptions, steps: int) -> int:
    """As many steps as show the pixels of `steps` steps of the shipped run's batches."""
    assert options.crop is not None
    height, width = OPTIONS["crop"]
    pixels: int = steps * OPTIONS["batch"] * height * width
    return max(1, round(pixels / (options.batch * options.crop[0] * options.crop[1])))


def _is_whole(records: Sequence[Json], options: TrainOptions) -> bool:
    """Whether a run is done. Raises UsageError if it was made with other options: its figures are not those that are asked for."""
    if not any(record["kind"] == "shipped" for record in records):
        return False
    start = next(record for record in reversed(records) if record["kind"] == "start")
    asked = plain(options)
    changed = [key for key in _MADE_WITH if start["options"][key] != asked[key]]
    if changed:
        raise UsageError(f"{options.output} was made with other options: {', '.join(changed)} differ.", "Choose another --folder.")
    return True


def kept_of(arguments: argparse.Namespace) -> Json:
    """What an earlier run has written of each fold; {} if it wrote nothing."""
    if arguments.json is None or not arguments.json.exists():
        return {}
    folds: Json = json.loads(arguments.json.read_text()).get("folds", {})
    return folds


class Pace:
    """Sees the records of a run, and keeps how many images it trained on and what CPU time that took, in a file beside the run.

    Of all that may slow a run down, CPU time is hardly moved by other work on the machine. A run that is killed leaves its last part out.
    """

    def __init__(self, path: Path, batch: int, resume: bool) -> None:
        self.path, self.batch = path, batch
        self.images, self.seconds = _pace(path) if resume else (0, 0.0)
        self.began, self.first, self.last = time.process_time(), 0, 0

    def __call__(self, record: Mapping[str, Any]) -> None:
        """Notes the step, and prints what a person wants to follow in a log file."""
        self.last = record["step"]
        if record["kind"] == "start":
            self.began, self.first = time.process_time(), record["step"]
        if record["kind"] == "step" and record["step"] % 100 == 0:
            minutes = record["seconds_left"] / 60
            print(f"  step {record['step']}/{record['steps']}  loss {record['loss']:.3f}  {minutes:.0f} min left", flush=True)

    def write(self) -> None:
        """Adds what was done since the start to the file."""
        images = self.images + (self.last - self.first) * self.batch
        seconds = self.seconds + time.process_time() - self.began
        write_atomic(self.path, json.dumps({"images": images, "cpu_seconds": round(seconds, 2)}).encode())


def _pace(path: Path) -> tuple[int, float]:
    if not path.exists():
        return 0, 0.0
    kept = json.loads(path.read_text())
    return kept["images"], kept["cpu_seconds"]


def figures_of(records: Sequence[Json], images: int, seconds: float) -> Json:
    """A run's records, the images that it was trained on and their CPU seconds -> mIoU and IoU of the held-out stretch in percent, pace."""
    shipped = next(record for record in reversed(records) if record["kind"] == "shipped")
    (scores,) = shipped["scores"].values()
    percent = {name: harness.percent(value) for name, value in scores["iou"].items()}
    return {
        "miou": harness.percent(scores["miou"]),
        "watched": {name: percent[name] for name in WATCHED if name in percent},
        "iou": percent,
        "steps": shipped["step"],
        "images_per_cpu_second": round(images / seconds, 2) if seconds else None,
    }


def gains(results: Json) -> Json:
    """The runs of every fold -> how much each idea moved mIoU and the watched classes from the baseline's, the mean over the folds that
    have both."""
    moved: Json = {}
    for runs in results.values():
        for name, run in runs.items():
            if name not in ("base", "baseline") and "baseline" in runs:
                moved.setdefault(name, []).append(_difference(run, runs["baseline"]))
    return {
        name: {key: round(sum(each[key] for each in some if key in each) / sum(key in each for each in some), 2) for key in some[0]}
        for name, some in moved.items()
    }


def _difference(run: Json, baseline: Json) -> dict[str, float]:
    pairs = {"miou": (run["miou"], baseline["miou"])} | {name: (run["watched"][name], baseline["watched"][name]) for name in run["watched"]}
    return {name: round(one - other, 2) for name, (one, other) in pairs.items() if one is not None and other is not None}


def measure(arguments: argparse.Namespace) -> Json:
    """Every idea on every fold, one after another; also the figures of a driver that was stopped."""
    asked: list[int] = []
    before = {number: signal.signal(number, lambda number, _: asked.append(number)) for number in (signal.SIGINT, signal.SIGTERM)}
    until = time.monotonic() + 60 * arguments.minutes
    driver = Driver(arguments, load_recipe(arguments.recipe), lambda: bool(asked) or time.monotonic() > until)
    results: Json = {}
    try:
        for fold in arguments.folds:
            weights, figures = driver.base(fold)
            runs = results.setdefault(fold, {"base": figures})
            for name in arguments.ideas:
                print(f"fold {fold}: {name}", flush=True)
                found = driver.idea(name, fold, weights)
                runs[name] = {"changes": IDEAS[name]} | found
                print(f"  mIoU {found['miou']}, {found['watched']}, {found['images_per_cpu_second']} images a CPU second", flush=True)
                _write(arguments, results)
    except Stopped:
        print("Stopped; the same command goes on.", flush=True)
        results = kept_of(arguments) | results  # the folds of an earlier run that this one has not come to
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return _document(arguments, results)


def _document(arguments: argparse.Namespace, results: Json) -> Json:
    figures = {
        "base_steps": arguments.base_steps,
        "steps": arguments.steps,
        "shared": {"base": BASE, "idea": BRANCH, "all": OPTIONS},
        "gains": gains(results),
        "folds": results,
    }
    return harness.stamped("ideas for training Slim on CamVid: IoU in percent on held-out stretches of train", figures)


def _write(arguments: argparse.Namespace, results: Json) -> None:
    """Writes the figures so far."""
    if arguments.json is not None:
        write_atomic(arguments.json, (json.dumps(_document(arguments, results), indent=1) + "\n").encode())


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = harness.command_line(__doc__)
    harness.add_threads(parser)
    parser.add_argument("--root", type=Path, required=True, help="the CamVid folder")
    parser.add_argument("--folder", type=Path, required=True, help="keep the runs here")
    parser.add_argument("--recipe", default=RECIPE)
    parser.add_argument("--folds", nargs="+", default=["1/4"], metavar="K/N", help="hold out these stretches, in turn")
    parser.add_argument("--ideas", nargs="+", choices=list(IDEAS), default=list(IDEAS), help="[default: all]")
    parser.add_argument("--base-steps", type=harness.positive, default=1000)
    parser.add_argument("--steps", type=harness.positive, default=300)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so many [default: when all is done]")
    parser.add_argument("--device", default="auto")
    return parser.parse_args(words)


def check(arguments: argparse.Namespace) -> None:
    """Raises UsageError for arguments that no run can use."""
    for fold in arguments.folds:
        Fold.parse(fold)
    if "baseline" not in arguments.ideas:
        raise UsageError("Without the baseline there is nothing to compare the ideas with.", "Add it to --ideas.")
    arguments.device = pick_device(arguments.device)


def main(words: Sequence[str] | None = None) -> int:
    arguments = parse(words)

    def checked() -> Json:
        check(arguments)
        return measure(arguments)

    return 1 if harness.run_script(arguments.json, checked) is None else 0


if __name__ == "__main__":
    raise SystemExit(main())
