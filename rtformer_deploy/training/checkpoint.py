"""Everything a run needs to go on -> one safetensors file, and back. Written whole or not at all; nothing in it is a pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ..errors import WeightsError, about, first_line
from ..files import write_atomic
from ..formats.conversion import convert, split_version
from ..formats.documents import parse_json
from ..formats.safetensors_file import CHECKPOINT_KEY, open_safetensors
from ..nn.weights import check_values
from ..types import Count
from .ema import Average

KEY = CHECKPOINT_KEY
VERSION = 1
_ADAMW = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True, slots=True)
class Meta:
    """What a checkpoint's metadata says: the step, and the options of its run."""

    step: Count
    run: Mapping[str, Any]


@dataclass(slots=True)
class TrainingState:
    """What changes while training; the batches and the random numbers follow from the seed and the step."""

    network: nn.Module
    optimizer: torch.optim.AdamW
    average: Average
    step: int = 0


def save(state: TrainingState, run: Mapping[str, Any], path: Path) -> None:
    """Writes the state and the run's options. Raises OutputError."""
    tensors: dict[str, Tensor] = {}
    for name, value in state.network.state_dict().items():
        tensors[f"network/{name}"] = value
    for name, value in state.average.state.items():
        tensors[f"average/{name}"] = value
    for name, parameter in state.network.named_parameters():
        for key, value in state.optimizer.state[parameter].items():
            tensors[f"optimizer/{key}/{name}"] = value
    tensors = {name: value.detach().contiguous().cpu() for name, value in tensors.items()}
    text = json.dumps({"version": VERSION, "step": state.step, "run": dict(run)})
    write_atomic(path, safetensors.torch.save(tensors, {KEY: text}))


def restore(state: TrainingState, path: Path) -> dict[str, Any]:
    """Reads a state back in place and returns the options of the run it belongs to. Raises WeightsError."""
    tensors, meta = read(path)
    check_values({name: value for name, value in tensors.items() if not name.startswith("optimizer/")}, str(path))
    try:
        state.network.load_state_dict({name: tensors[f"network/{name}"] for name in state.network.state_dict()})
        for name, value in state.average.state.items():
            value.copy_(_of_shape(tensors[f"average/{name}"], value.shape))
        for name, parameter in state.network.named_parameters():
            state.optimizer.state[parameter] = _of_optimizer(tensors, name, parameter)
    except KeyError as error:
        raise _another(path, f"it has no {error.args[0]}") from error
    except (RuntimeError, ValueError) as error:
        raise _another(path, first_line(error)) from error
    state.step = meta.step
    return dict(meta.run)


def read(path: Path) -> tuple[dict[str, Tensor], Meta]:
    """A checkpoint's tensors, and its step and run. Raises WeightsError if the file is not a checkpoint, or one of a newer version."""
    try:
        with open_safetensors(path, "pt") as file:
            meta = _parse((file.metadata() or {})[KEY], path)
            return {name: file.get_tensor(name) for name in file.keys()}, meta  # noqa: SIM118 - the file object is no mapping
    except _NewerError:
        raise
    except WeightsError as error:
        raise WeightsError(about(path, "is not a checkpoint of a training run", error), error.hint) from error
    except (OSError, KeyError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{path} is not a checkpoint of a training run: {first_line(error)}.") from error


class _NewerError(WeightsError):
    """The checkpoint is of a newer version."""


def _parse(text: str, path: Path) -> Meta:
    """A checkpoint's metadata -> its values; without a version it is of an earlier release. Raises DocumentError, _NewerError."""
    version, values = split_version(parse_json(text))
    if version > VERSION:
        raise _NewerError(
            f"{path} is a checkpoint in version {version} of the format; this rtformer-deploy reads version {VERSION}.",
            "Update it: pip install --upgrade rtformer-deploy",
        )
    return convert(values, Meta)


def _of_optimizer(tensors: Mapping[str, Tensor], name: str, parameter: Tensor) -> dict[str, Tensor]:
    """AdamW's state for a parameter; empty before the first step. Raises KeyError or ValueError if it is incomplete or does not fit."""
    keys = {key: f"optimizer/{key}/{name}" for key in _ADAMW}
    if not any(key in tensors for key in keys.values()):
        return {}
    values = {key: tensors[whole] for key, whole in keys.items()}
    for key, value in values.items():
        _of_shape(value, torch.Size() if key == "step" else parameter.shape)
        if not value.is_floating_point() or not bool(torch.isfinite(value).all()):
            raise ValueError(f"{keys[key]} holds values that are not finite numbers")
    return {key: _like(value, parameter) for key, value in values.items()}


def _of_shape(value: Tensor, shape: torch.Size) -> Tensor:
    if value.shape != shape:
        raise ValueError(f"it holds a tensor of shape {list(value.shape)[:8]} for one of {list(shape)}")
    return value


def _another(path: Path, why: str) -> WeightsError:
    return WeightsError(f"{path} is a checkpoint of another network: {why}.", "Resume with the options that the run began with.")


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    """An optimizer's tensor on its device and in its layout: the step count stays a scalar, moments are laid out as the parameter."""
    value = value.to(parameter.device)
    return value if value.dim() == 0 else torch.empty_like(parameter).copy_(value)
