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

from ..errors import WeightsError
from ..files import write_atomic
from .ema import Average

KEY = "rtformer_deploy.training"


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
    text = json.dumps({"step": state.step, "run": dict(run)})
    write_atomic(path, safetensors.torch.save(tensors, {KEY: text}))


def restore(state: TrainingState, path: Path) -> dict[str, Any]:
    """Reads a state back in place and returns the options of the run it belongs to. Raises WeightsError."""
    tensors, meta = read(path)
    try:
        state.network.load_state_dict({name: tensors[f"network/{name}"] for name in state.network.state_dict()})
        for name, value in state.average.state.items():
            value.copy_(tensors[f"average/{name}"])
        for name, parameter in state.network.named_parameters():
            keys = [key for key in tensors if key.startswith("optimizer/") and key.split("/", 2)[2] == name]
            state.optimizer.state[parameter] = {key.split("/")[1]: _like(tensors[key], parameter) for key in keys}
    except (KeyError, RuntimeError) as error:
        raise WeightsError(
            f"{path} is a checkpoint of another network: {error}.", "Resume with the options that the run began with."
        ) from error
    state.step = int(meta["step"])
    return dict(meta["run"])


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A checkpoint's tensors and its {"step", "run"}. Raises WeightsError if the file is none."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            meta = json.loads((file.metadata() or {})[KEY])
            return {name: file.get_tensor(name) for name in file.keys()}, meta  # noqa: SIM118 - the file object is no mapping
    except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{path} is not a checkpoint of a training run: {error}.") from error


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    """An optimizer's tensor on its device and in its layout: the step count stays a scalar, moments are laid out as the parameter."""
    value = value.to(parameter.device)
    return value if value.dim() == 0 else torch.empty_like(parameter).copy_(value)
