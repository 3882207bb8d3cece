"""A recipe, a dataset and fresh or given weights -> a trained network: checkpoints, a log, and FP16 weights to ship.

Batch k, its learning rate and its random numbers are functions of the seed and k, so a run that was killed and resumed ends, on a
CPU and with the same number of threads, with the very bits of one that was not.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..datasets import Dataset, open_dataset
from ..errors import DatasetError, DeployError, UsageError
from ..files import make_folder
from ..formats.recipe import Recipe, load_labels
from ..image.reader import ImageReader, silent
from ..nn import build_network
from ..nn.weights import save_weights
from ..pictures.training import plot_log
from ..training.augment import Augmentation
from ..training.checkpoint import State, restore, save
from ..training.ema import Average
from ..training.initial import load_fitting
from ..training.loader import Batches, Sampling, take_census
from ..training.log import Log
from ..training.losses import Loss, class_weights
from ..training.options import PATHS, TrainOptions, check_resumed, make_schedule, plain
from ..training.scoring import Normalise, score, to_channels_last
from ..types import Say

__all__ = ["TrainOptions", "TrainingRun", "open_splits", "pick_device", "train", "with_dataset"]

Watch = Callable[[Mapping[str, Any]], None]


def train(
    recipe: Recipe,
    options: TrainOptions,
    *,
    resume: bool = False,
    watch: Watch = lambda record: None,
    stop: Callable[[], bool] = lambda: False,
    say: Say = silent,
) -> dict[str, Any]:
    """Trains a recipe's network; returns the last log record. `watch` gets every record; `stop` is asked after each step; `say` hears
    what is odd about the dataset's files.

    In `options.output`: checkpoint.safetensors (the run goes on from it with `resume`, also with another `steps`: the schedule is
    a function of step / steps), log.jsonl, log.svg, and at the end NAME.safetensors, the averaged weights in FP16.
    Raises DatasetError, WeightsError, UsageError, OutputError, and DeployError where the loss is no longer a number.
    """
    run = TrainingRun(recipe, options, resume, watch, say)
    return run.loop(stop)


class TrainingRun:
    """One training run: what it was given, and what changes."""

    def __init__(self, recipe: Recipe, options: TrainOptions, resume: bool, watch: Watch, say: Say = silent) -> None:
        _settle(options)
        self.recipe, self.options, self.watch = recipe, options, watch
        self.folder = make_folder(options.output)
        self.device = torch.device(options.device)
        self.size = options.size or recipe.size
        self.schedule = make_schedule(options, self.size)
        fit, self.checks = open_splits(recipe.dataset, options.root, options.hold_out, ImageReader(options.bit_depth, say))
        torch.manual_seed(options.seed)
        self.arch = dict(recipe.arch) | ({} if options.drop_path is None else {"drop_path": options.drop_path})
        network = build_network(self.arch, len(recipe.labels.names))
        left_out = load_fitting(network, options.init) if options.init and not resume else None
        network = to_channels_last(network.to(self.device))
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = options.bn_momentum
        self.state = State(network, _optimizer(network, options), Average(network, options.ema))
        self.log = Log(self.folder / "log.jsonl", resume)
        if resume:
            self._resume()
        else:
            self._refuse_overwriting()
        census = take_census(fit, options.threads or 2) if options.balance or options.rare or options.mix else None
        self.loss = Loss(recipe.labels.ignore_index, None, options.ohem, options.aux)
        if census is not None and options.balance:
            self.loss = dataclasses.replace(self.loss, weights=class_weights(census.shares, options.balance).to(self.device))
        augmentation = Augmentation(scale=options.scale, colour=options.colour)
        self.batches = Batches(fit, self.schedule, augmentation, Sampling(options.rare, options.mix), census, options.seed)
        self.normalise = Normalise(recipe.mean, recipe.std, self.device)
        frames = {split.split: len(split) for split in (fit, *self.checks)}
        start = {"kind": "start", "step": self.state.step, "recipe": recipe.name, "frames": frames, "torch": torch.__version__}
        told = {key: value for key, value in plain(options).items() if key not in PATHS}
        self.record(start | {"options": told} | ({} if left_out is None else {"left_out": left_out}))

    def loop(self, stop: Callable[[], bool]) -> dict[str, Any]:
        state, options, schedule = self.state, self.options, self.schedule
        saved = began = time.monotonic()
        first, last = state.step, self.log.records[-1]
        workers = 1 if self.device.type == "cpu" else 8
        for views, labels in self.batches.ahead(state.step, schedule.steps, workers):
            values = self.step(views, labels)
            done = state.step
            if done % options.log_every == 0 or done == schedule.steps:
                pace = (time.monotonic() - began) / (done - first)
                last = {"kind": "step", "step": done, "steps": schedule.steps, "lr": schedule.learning_rate(done - 1), **values,
                        "seconds_per_step": pace, "seconds_left": pace * (schedule.steps - done)}  # fmt: skip
                self.record(last)
            if done % options.evaluate_every == 0 or done == schedule.steps:
                last = self.evaluate()
            stopping = stop()
            if stopping or done == schedule.steps or time.monotonic() - saved > options.save_seconds:
                save(state, plain(options), self.folder / "checkpoint.safetensors")
                saved = time.monotonic()
            if stopping and done < schedule.steps:
                last = {"kind": "stopped", "step": done}
                self.record(last)
                return last
        self.ship()
        plot_log(self.log.records, self.folder / "log.svg")
        return last

    def step(self, views: NDArray[np.uint8], labels: NDArray[np.uint8]) -> dict[str, float]:
        """One step of training on one batch; returns its losses and the gradient's norm."""
        state, options = self.state, self.options
        torch.manual_seed(options.seed * 1_000_003 + state.step)  # what drop path drops
        for group in state.optimizer.param_groups:
            group["lr"] = self.schedule.learning_rate(state.step)
        state.network.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            logits, aux = state.network(self.normalise(views))
        total, main, extra = self.loss(logits, aux, torch.from_numpy(labels).to(self.device).long())
        if not torch.isfinite(total):
            raise DeployError(f"The loss of step {state.step + 1} is {total.item()}: the run diverged.", "Begin again with a lower --lr.")
        state.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(total)
        norm = nn.utils.clip_grad_norm_(state.network.parameters(), options.clip or float("inf"))
        state.optimizer.step()
        state.average.update(state.network, state.step)
        state.step += 1
        return {"loss": total.item(), "main": main.item(), "aux": extra.item(), "gradient": float(norm)}

    def evaluate(self) -> dict[str, Any]:
        """Scores the averaged weights on every check and records it."""
        network = self.averaged(torch.float32)
        found = {check.split: score(network, check, self.size, self.normalise).to_json() for check in self.checks}
        record = {"kind": "scores", "step": self.state.step, "steps": self.schedule.steps, "scores": found}
        self.record(record)
        return record

    def averaged(self, dtype: torch.dtype) -> nn.Module:
        """A network for inference with the averaged weights, rounded to `dtype` and computing in float32."""
        network = build_network(self.arch, len(self.recipe.labels.names), aux=False)
        wanted = network.state_dict()
        network.load_state_dict({name: value.to(dtype) for name, value in self.state.average.state.items() if name in wanted})
        return to_channels_last(network.to(self.device)).eval()

    def ship(self) -> None:
        """Writes the averaged weights in FP16, without the auxiliary head, and records what the rounded weights score."""
        network = self.averaged(torch.float16)
        found = {check.split: score(network, check, self.size, self.normalise).to_json() for check in self.checks}
        self.record({"kind": "shipped", "step": self.state.step, "scores": found})
        weights = {name: value.half().cpu() for name, value in network.state_dict().items() if value.is_floating_point()}
        metadata = {"recipe": self.recipe.name, "size": f"{self.size[0]}x{self.size[1]}", "steps": str(self.state.step)}
        metadata["miou"] = json.dumps({split: values["miou"] for split, values in found.items()})
        save_weights(weights, self.folder / f"{self.recipe.name}.safetensors", metadata)

    def record(self, record: Mapping[str, Any]) -> None:
        self.log.write(record)
        self.watch(record)

    def _resume(self) -> None:
        check_resumed(restore(self.state, self.folder / "checkpoint.safetensors"), self.options)
        if self.state.step > self.options.steps:
            raise UsageError(f"The run has done {self.state.step} steps already; --steps {self.options.steps} lies behind it.")
        self.log.cut(self.state.step)

    def _refuse_overwriting(self) -> None:
        if (self.folder / "checkpoint.safetensors").exists():
            raise UsageError(f"{self.folder} holds a run already.", "Go on with it (--resume), or choose another folder with --output.")


def open_splits(dataset: str, root: Path, hold_out: str | None, reader: ImageReader | None = None) -> tuple[Dataset, list[Dataset]]:
    """A dataset -> what is trained on, and the checks: val, and the frames that `hold_out` keeps back. Raises DatasetError."""
    fit, checks = open_dataset(dataset, root, "train", reader), [open_dataset(dataset, root, "val", reader)]
    if hold_out is not None:
        names = [sample.name for sample in fit.samples if sample.name.startswith(hold_out)]
        held = set(names[len(names) - round(len(names) / 3) :]) if names else set()
        if not held:
            raise DatasetError(f"Fewer than two training frames have names that begin with {hold_out!r}; nothing can be held out.")
        checks.append(fit.subset(held, "held-out"))
        fit = fit.subset({sample.name for sample in fit.samples} - held, "train")
    return fit, checks


def with_dataset(recipe: Recipe, dataset: str | None) -> Recipe:
    """The recipe with another dataset's classes, by name or TOML file; None leaves it as it is. Raises RecipeError."""
    return recipe if dataset is None else dataclasses.replace(recipe, dataset=dataset, labels=load_labels(dataset))


def pick_device(name: str) -> str:
    """A device's name, where "auto" is a GPU if there is one -> a name that can be used here. Raises UsageError."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name != "cpu" and not (name.partition(":")[0] == "cuda" and torch.cuda.is_available()):
        raise UsageError(f"There is no device {name!r} here.", "Use cpu, or auto.")
    return name


def _optimizer(network: nn.Module, options: TrainOptions) -> torch.optim.AdamW:
    """AdamW; normalisations and biases, the vectors, do not decay."""
    parameters = list(network.parameters())
    groups = [
        {"params": [value for value in parameters if value.dim() > 1], "weight_decay": options.weight_decay},
        {"params": [value for value in parameters if value.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=options.rate, fused=True)


def _settle(options: TrainOptions) -> None:
    """Threads: OpenCV runs inside the loader's own threads, so it gets one."""
    cv2.setNumThreads(1)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
