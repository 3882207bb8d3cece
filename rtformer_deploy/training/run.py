"""A recipe, labelled frames and weights to begin with -> a trained network, step by step. Nothing is written here.

Batch k, its learning rate and its random numbers are functions of the seed and k, so on a CPU, with
the same number of threads, a run that was killed and resumed ends with the same bits as one that was not.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..datasets import Dataset
from ..errors import DeployError, UsageError, shorten
from ..evaluation.census import Census, take_census
from ..export.foreign import read_weights
from ..formats.recipe import Recipe
from ..nn import Auxiliary, StateDict, architecture_row, auxiliaries_of, build_network, full_configuration
from .augment import Augmentation
from .checkpoint import TrainingState, restore
from .distill import distillation_loss, taught
from .ema import Average
from .identity import KEY as IDENTITY
from .identity import check_identity, identity
from .initial import load_fitting
from .loader import Batches, Sampling
from .losses import Loss, class_weights
from .options import PATHS, TrainOptions, check_resumed, make_schedule, plain
from .scoring import Normalise, score, to_channels_last

#: Takes one record of the log: a JSON object with its kind.
Watch = Callable[[Mapping[str, Any]], None]


class TrainingRun:
    """One training run: its network and everything that changes with it.

    Trains on `fit` and scores on each of `checks`. It begins with the weights in the file `init` that fit (None: fresh weights);
    `left_out` names the rest. `census` is that of `fit`, if it was taken already.
    """

    def __init__(
        self,
        recipe: Recipe,
        options: TrainOptions,
        fit: Dataset,
        checks: Sequence[Dataset],
        init: Path | None = None,
        census: Census | None = None,
    ) -> None:
        _settle(options)
        if options.size is not None and recipe.scale < 1:
            raise UsageError(
                f"{recipe.name} sees every frame at {recipe.scale:g} of its own size, so it cannot be scored at one size.",
                "Leave --size out; --crop sets the size of the views.",
            )
        self.size = options.size or recipe.size
        self.arch = _architecture(recipe, options, self.size)
        auxiliaries, options = _weighed(auxiliaries_of(self.arch), options)
        self.recipe, self.options, self.fit, self.checks = recipe, options, fit, checks
        self.device = torch.device(options.device)
        self.schedule = make_schedule(options, self.size)
        torch.manual_seed(options.seed)
        network = build_network(self.arch, len(recipe.labels.names))
        self.left_out = None if init is None else load_fitting(network, read_weights(init, recipe), init)
        network = to_channels_last(network.to(self.device))
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = options.bn_momentum
        self.state = TrainingState(network, _optimizer(network, options), Average(network, options.ema))
        if not (options.balance or options.rare or options.paste):
            census = None
        elif census is None:
            census = take_census(fit, options.threads)
        self.loss = Loss(recipe.labels.ignore_index, None, options.ohem, auxiliaries, recipe.resize_corners, options.boundary)
        if census is not None and options.balance:
            self.loss = dataclasses.replace(self.loss, weights=class_weights(census.shares, options.balance).to(self.device))
        augmentation = Augmentation(scale=options.scale, colour=options.colour, frame_scale=recipe.scale, corners=recipe.resize_corners)
        self.batches = Batches(fit, self.schedule, augmentation, Sampling(options.rare, options.paste), census, options.seed)
        self.normalise = Normalise(recipe.mean, recipe.std, self.device)

    @property
    def about(self) -> dict[str, Any]:
        """What a checkpoint says about the run: its options, and the data that it is trained on."""
        return plain(self.options) | {IDENTITY: identity((self.fit, *self.checks))}

    def resume(self, checkpoint: Path) -> None:
        """Goes on from a checkpoint. Raises WeightsError, and UsageError if the run began with other options or other data or has done
        more steps."""
        before = restore(self.state, checkpoint)
        check_resumed(before, self.options)
        check_identity(before, (self.fit, *self.checks), self.options.root)
        if self.state.step > self.options.steps:
            raise UsageError(f"The run has done {self.state.step} steps already; --steps {self.options.steps} lies behind it.")

    def start(self) -> dict[str, Any]:
        """The record that a run, or its continuation, begins with."""
        frames = {split.split: len(split) for split in (self.fit, *self.checks)}
        start = {"kind": "start", "step": self.state.step, "recipe": self.recipe.name, "frames": frames, "torch": torch.__version__}
        options = {key: value for key, value in plain(self.options).items() if key not in PATHS}
        return start | {"options": options} | ({} if self.left_out is None else {"left_out": self.left_out})

    def loop(self, watch: Watch, save: Callable[[], None], stop: Callable[[], bool]) -> dict[str, Any]:
        """Trains to the last step; returns the last record, of kind "stopped" if `stop` asked for that.

        `stop` is called after each step, `watch` with every record, `save` when a checkpoint is due.
        """
        state, options, steps = self.state, self.options, self.schedule.steps
        saved = began = time.monotonic()
        first, last = state.step, self.start()
        watch(last)
        workers = 1 if self.device.type == "cpu" else 8
        for views, labels in self.batches.ahead(first, steps, workers):
            values = self.step(views, labels)
            done, now = state.step, time.monotonic()
            if done % options.log_every == 0 or done == steps:
                last = self._step_record(values, (now - began) / (done - first))
                watch(last)
            scoring = done % options.evaluate_every == 0 or done == steps
            if scoring or now - saved > options.save_seconds:
                save()  # before the scores: what was learned must not be lost if they fail
                saved = time.monotonic()
            if scoring:
                last = {"kind": "scores", "step": done, "steps": steps, "scores": self.scores(self.averaged(torch.float32))}
                watch(last)
            if stop() and done < steps:
                save()
                last = {"kind": "stopped", "step": done}
                watch(last)
                break
        return last

    def _step_record(self, values: Mapping[str, float], pace: float) -> dict[str, Any]:
        """The record of a step: its losses, and the pace in seconds a step."""
        done, steps = self.state.step, self.schedule.steps
        rate = self.schedule.learning_rate(done - 1)
        time_left = {"seconds_per_step": pace, "seconds_left": pace * (steps - done)}
        return {"kind": "step", "step": done, "steps": steps, "lr": rate, **values, **time_left}

    def step(self, views: NDArray[np.uint8], labels: NDArray[np.uint8]) -> dict[str, float]:
        """One step of training on one batch; returns its losses and the gradient's norm."""
        state, options = self.state, self.options
        torch.manual_seed(options.seed * 1_000_003 + state.step)  # what drop path drops
        for group in state.optimizer.param_groups:
            group["lr"] = self.schedule.learning_rate(state.step)
        total, parts = self._losses(views, torch.from_numpy(labels).to(self.device).long())
        if not torch.isfinite(total):
            raise DeployError(f"The loss of step {state.step + 1} is {total.item()}: the run diverged.", "Begin again with a lower --lr.")
        state.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(total)
        norm = nn.utils.clip_grad_norm_(state.network.parameters(), options.clip or float("inf"))
        state.optimizer.step()
        state.average.update(state.network, state.step)
        state.step += 1
        return {"loss": total.item(), **{name: part.item() for name, part in parts.items()}, "gradient": float(norm)}

    def _losses(self, views: NDArray[np.uint8], labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The whole loss of one batch, and its parts by name, without their weights."""
        state, options = self.state, self.options
        images = self.normalise(views)
        with self._autocast():
            outputs = state.network.train()(images)
        outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
        total, *values = self.loss(*outputs, labels)
        parts = dict(zip(self.loss.names, values, strict=True))
        if options.distill and state.step >= options.warmup:
            with self._autocast():
                teacher = taught(state.average.network, images)
            parts["distill"] = distillation_loss(outputs[0], teacher)
            total = total + options.distill * parts["distill"]
        return total, parts

    def _autocast(self) -> torch.autocast:
        """Computes in bfloat16 on a GPU."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    def scores(self, network: nn.Module) -> dict[str, Any]:
        """A network's scores on every check, by split."""
        spec, threads = self.recipe.spec(size=self.size), self.options.threads
        return {check.split: score(network, check, spec, self.device, threads).to_json() for check in self.checks}

    def averaged(self, dtype: torch.dtype) -> nn.Module:
        """A network for inference with the averaged weights, rounded to `dtype` and computing in float32."""
        network = build_network(self.arch, len(self.recipe.labels.names), aux=False)
        targets = network.state_dict()
        network.load_state_dict({name: value.to(dtype) for name, value in self.state.average.state.items() if name in targets})
        return to_channels_last(network.to(self.device)).eval()

    def shipped(self) -> tuple[StateDict, nn.Module]:
        """The averaged weights in FP16, without the auxiliary head, and the network that holds these rounded weights."""
        network = self.averaged(torch.float16)
        return {name: value.half().cpu() for name, value in network.state_dict().items() if value.is_floating_point()}, network


def pick_device(name: str) -> str:
    """A device's name, or "auto" for a GPU if there is one -> a name that can be used here. Raises UsageError."""
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


def _architecture(recipe: Recipe, options: TrainOptions, size: tuple[int, int]) -> dict[str, Any]:
    """The recipe's [architecture] with the options' drop path and heads. Raises UsageError if the network has none of the kind, and
    RecipeError if it cannot take one of the run's sizes."""
    for each in (size, options.crop, options.final_crop):
        if each is not None:
            architecture_row(recipe.arch).check_size(each)
    known, arch, name = full_configuration(recipe.arch), dict(recipe.arch), recipe.arch["name"]
    if options.drop_path is not None:
        if "drop_path" not in known:
            raise UsageError(f"The architecture {name} has no drop path.", "Leave --drop-path out.")
        arch["drop_path"] = options.drop_path
    for head in options.heads:
        if f"aux_{head}" not in known:
            there = ", ".join(key.removeprefix("aux_") for key in known if key.startswith("aux_"))
            raise UsageError(
                f"The architecture {name} has no auxiliary head {shorten(repr(head))}.",
                f"It has: {there}." if there else "Leave --aux-head out.",
            )
        arch[f"aux_{head}"] = True
    return arch


def _weighed(auxiliaries: tuple[Auxiliary, ...], options: TrainOptions) -> tuple[tuple[Auxiliary, ...], TrainOptions]:
    """The network's auxiliary outputs with the options' weight, if there is one, and the options with the weight that all outputs have."""
    if options.aux is not None:
        return tuple(dataclasses.replace(each, weight=options.aux) for each in auxiliaries), options
    weights = {each.weight for each in auxiliaries}
    return auxiliaries, dataclasses.replace(options, aux=weights.pop()) if len(weights) == 1 else options


def _settle(options: TrainOptions) -> None:
    """Sets the numbers of threads. OpenCV gets one, because it runs inside the loader's threads."""
    cv2.setNumThreads(1)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
