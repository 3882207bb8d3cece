"""What `train` does with files: a dataset and a recipe in; checkpoints, a log with its picture, and FP16 weights to ship out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..datasets import Dataset, open_dataset
from ..errors import DatasetError, UsageError
from ..files import make_folder, remove, write_atomic
from ..formats.recipe import Recipe, load_labels
from ..image.reader import ImageReader
from ..nn.weights import save_weights
from ..pictures import why_not_drawn
from ..training.checkpoint import save
from ..training.log import Log
from ..training.options import TrainOptions, plain
from ..training.run import TrainingRun, Watch
from ..types import Say
from .kinds import CHECKPOINT, DRAWING, TRAINING_LOG, WEIGHTS
from .outputs import Output, check_outputs, file_inputs


def train(
    recipe: Recipe,
    options: TrainOptions,
    *,
    resume: bool = False,
    watch: Watch = lambda record: None,
    stop: Callable[[], bool] = lambda: False,
    say: Say = print,
) -> dict[str, Any]:
    """Trains a recipe's network; returns the last log record. `watch` gets every record; `stop` is asked after each step.

    In `options.output`: checkpoint.safetensors (the run goes on from it with `resume`, also with another `steps`: the schedule is
    a function of step / steps), log.jsonl, log.svg, and at the end NAME.safetensors, the averaged weights in FP16.
    `say` gets a line about each problem in the dataset's files, and one at the start if log.svg cannot be drawn without the extra `report`.
    Raises DatasetError, WeightsError, UsageError, OutputError, and DeployError if the loss is no longer a number.
    """
    folder = options.output
    checkpoint = folder / "checkpoint.safetensors"
    if not resume and checkpoint.exists():
        raise UsageError(f"{folder} holds a run already.", "Go on with it (--resume), or choose another folder with --output.")
    _check_files(recipe, options, checkpoint, resume)
    fit, checks = open_splits(recipe.dataset, options.root, options.hold_out, ImageReader(options.bit_depth, say))
    run = TrainingRun(recipe, options, fit, checks, None if resume else options.init)
    if resume:
        run.resume(checkpoint)
    reason = why_not_drawn("log.svg")
    if reason is not None:
        say(reason)
    make_folder(folder)
    log = Log(folder / "log.jsonl", resume)
    if resume:
        log.cut(run.state.step)

    def record(entry: Mapping[str, Any]) -> None:
        log.write(entry)
        watch(entry)

    last = run.loop(record, lambda: save(run.state, plain(options), checkpoint), stop)
    if last["kind"] != "stopped":
        _ship(run, folder, record)
        _draw(log, folder / "log.svg")
    return last


def _check_files(recipe: Recipe, options: TrainOptions, checkpoint: Path, resume: bool) -> None:
    """Raises OutputError if the folder cannot be made, or a file of the run would replace one that is not from a run."""
    folder = options.output
    planned = [
        Output(folder / "log.jsonl", TRAINING_LOG, updated=True),
        Output(folder / "log.svg", DRAWING),
        Output(folder / f"{recipe.name}.safetensors", WEIGHTS),
    ]
    if resume:
        inputs = file_inputs(checkpoint, recipe.dataset)
    else:
        inputs = file_inputs(options.init, recipe.dataset)
        planned.append(Output(checkpoint, CHECKPOINT))
    check_outputs(planned, inputs, folder=folder)


def open_splits(dataset: str, root: Path, hold_out: str | None, reader: ImageReader | None = None) -> tuple[Dataset, list[Dataset]]:
    """A dataset -> what is trained on, and the checks: val, and the frames that `hold_out` keeps back. Raises DatasetError."""
    fit, checks = open_dataset(dataset, root, "train", reader), [open_dataset(dataset, root, "val", reader)]
    if hold_out is not None:
        names = [sample.name for sample in fit.samples if sample.name.startswith(hold_out)]
        held_out = set(names[len(names) - round(len(names) / 3) :]) if names else set()
        if not held_out:
            raise DatasetError(f"Fewer than two training frames have names that begin with {hold_out!r}; nothing can be held out.")
        checks.append(fit.subset(held_out, "held-out"))
        fit = fit.subset({sample.name for sample in fit.samples} - held_out, "train")
    return fit, checks


def with_dataset(recipe: Recipe, dataset: str | None) -> Recipe:
    """The recipe with another dataset's classes, by name or TOML file; None leaves it as it is. Raises RecipeError."""
    return recipe if dataset is None else dataclasses.replace(recipe, dataset=dataset, labels=load_labels(dataset))


def _ship(run: TrainingRun, folder: Path, record: Watch) -> None:
    """Writes the averaged weights, and records the scores of the rounded weights."""
    weights, scores = run.shipped()
    record({"kind": "shipped", "step": run.state.step, "scores": scores})
    metadata = {
        "recipe": run.recipe.name,
        "size": f"{run.size[0]}x{run.size[1]}",
        "steps": str(run.state.step),
        "miou": json.dumps({split: values["miou"] for split, values in scores.items()}),
    }
    save_weights(weights, folder / f"{run.recipe.name}.safetensors", metadata)


def _draw(log: Log, path: Path) -> None:
    """Writes the picture of the log, if it can be drawn here; otherwise removes the picture of an earlier run."""
    if why_not_drawn(path.name) is not None:
        remove(path)
        return
    from ..pictures.training import draw_training

    write_atomic(path, draw_training(log.records).encode())
