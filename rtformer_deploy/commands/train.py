"""What `train` does with files: a dataset and a recipe in; checkpoints, a log with its picture, and FP16 weights to ship out."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..datasets import Dataset
from ..errors import UsageError
from ..evaluation.census import Census, check_census, take_census
from ..files import make_folder, remove, write_atomic
from ..formats.recipe import Recipe, load_labels
from ..formats.weights_file import weights_metadata
from ..image.reader import ImageReader
from ..nn import StateDict, architecture_row
from ..nn.weights import save_weights
from ..pictures import why_not_drawn
from ..training.checkpoint import save
from ..training.log import Log
from ..training.options import TrainOptions
from ..training.run import TrainingRun, Watch
from ..training.splits import open_splits
from ..types import Progress, Say, no_progress
from .kinds import CHECKPOINT, DRAWING, TRAINING_LOG, WEIGHTS
from .outputs import Output, check_outputs, file_inputs

_LOG = "log.jsonl"


def train(
    recipe: Recipe,
    options: TrainOptions,
    *,
    resume: bool = False,
    watch: Watch = lambda record: None,
    stop: Callable[[], bool] = lambda: False,
    say: Say = print,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Trains a recipe's network; returns the last log record. `watch` gets every record; `stop` is asked after each step.

    In `options.output`: checkpoint.safetensors (the run goes on from it with `resume`, also with another `steps`: the schedule is
    a function of step / steps), log.jsonl, log.svg, and at the end NAME.safetensors, the averaged weights in FP16 with their ModelSpec.
    Every label is read before the first step; `progress` counts them. `say` gets a line about each problem in the dataset's files, and
    one at the start if log.svg cannot be drawn without the extra `report`. Raises DatasetError, also if there is nothing to learn;
    WeightsError, UsageError, OutputError, and DeployError if the loss is no longer a number.
    """
    folder = options.output
    checkpoint, weights = folder / "checkpoint.safetensors", folder / f"{recipe.name}.safetensors"
    if not resume:
        _refuse_to_overwrite(checkpoint, folder / _LOG, weights)
    _check_files(recipe, options, checkpoint, weights, resume)
    reader = ImageReader(options.bit_depth, say)
    fit, checks = open_splits(recipe.dataset, options.root, hold_out=options.hold_out, fold=options.fold, also=options.also, reader=reader)
    census = _survey(fit, checks, options, say, progress)
    run = TrainingRun(recipe, options, fit, checks, None if resume else options.init, census)
    if resume:
        run.resume(checkpoint)
    reason = why_not_drawn("log.svg")
    if reason is not None:
        say(reason)
    make_folder(folder)
    log = Log(folder / _LOG, resume)
    if resume:
        log.cut(run.state.step)

    def record(entry: Mapping[str, Any]) -> None:
        log.write(entry)
        watch(entry)

    def keep() -> None:
        save(run.state, run.about, checkpoint)
        if run.state.step == options.steps:
            _save_weights(run, run.shipped()[0], weights)

    last = run.loop(record, keep, stop)
    if last["kind"] != "stopped":
        _ship(run, weights, record)
        _draw(log, folder / "log.svg")
    return last


def _refuse_to_overwrite(checkpoint: Path, log: Path, weights: Path) -> None:
    """Raises UsageError if the output folder holds an earlier run, or what is left of one."""
    there = [path.name for path in (checkpoint, log, weights) if os.path.exists(path)]
    if there:
        go_on = "Go on with it (--resume), or choose" if os.path.exists(checkpoint) else "Choose"
        raise UsageError(f"{log.parent} holds a run already: {', '.join(there)}.", f"{go_on} another folder with --output.")


def _survey(fit: Dataset, checks: Sequence[Dataset], options: TrainOptions, say: Say, progress: Progress) -> Census:
    """Reads every label once, and every image's header -> what is trained on. Raises DatasetError if there is nothing to learn."""
    census = take_census(fit, options.threads, progress)
    check_census(fit, census, "learn")
    for check in checks:
        check_census(check, take_census(check, options.threads, progress), "score")
    missing = census.missing(fit.labels.names)
    if missing:
        say(f"No pixel of the {fit.split!r} split of {fit.name} is {' or '.join(missing)}: this cannot be learned from it.")
    return census


def _check_files(recipe: Recipe, options: TrainOptions, checkpoint: Path, weights: Path, resume: bool) -> None:
    """Raises OutputError if the folder cannot be made, or a file of the run would replace one that is not from a run."""
    folder = options.output
    planned = [
        Output(folder / _LOG, TRAINING_LOG, updated=True),
        Output(folder / "log.svg", DRAWING),
        Output(weights, WEIGHTS),
    ]
    if resume:
        inputs = file_inputs(checkpoint, recipe.dataset)
    else:
        inputs = file_inputs(options.init, recipe.dataset)
        planned.append(Output(checkpoint, CHECKPOINT))
    check_outputs(planned, inputs, folder=folder)


def with_dataset(recipe: Recipe, dataset: str | None) -> Recipe:
    """The recipe with another dataset's classes, by name or TOML file; None leaves it as it is. Raises RecipeError."""
    return recipe if dataset is None else dataclasses.replace(recipe, dataset=dataset, labels=load_labels(dataset))


def _ship(run: TrainingRun, path: Path, record: Watch) -> None:
    """Writes the averaged weights, scores them as they were rounded, records the scores and adds them to the file."""
    weights, network = run.shipped()
    _save_weights(run, weights, path)
    scores = run.scores(network)
    record({"kind": "shipped", "step": run.state.step, "scores": scores})
    _save_weights(run, weights, path, {"miou": json.dumps({split: values["miou"] for split, values in scores.items()})})


def _save_weights(run: TrainingRun, weights: StateDict, path: Path, more: Mapping[str, str] = MappingProxyType({})) -> None:
    """Writes a run's weights with what they are."""
    recipe = dataclasses.replace(run.recipe, arch=run.arch, size=run.size)
    metadata = weights_metadata(recipe, architecture_row(run.arch).stride)
    save_weights(weights, path, {**metadata, "steps": str(run.state.step), **more})


def _draw(log: Log, path: Path) -> None:
    """Writes the picture of the log, if it can be drawn here; otherwise removes the picture of an earlier run."""
    if why_not_drawn(path.name) is not None:
        remove(path)
        return
    from ..pictures.training import draw_training

    write_atomic(path, draw_training(log.records).encode())
