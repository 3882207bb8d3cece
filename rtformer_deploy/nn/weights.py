"""Weights: files of three kinds in, tensors by key out; hashing; and loading into a network with every mismatch in one message."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ..errors import WeightsError, first_line
from ..files import read_bytes, write_atomic
from .pdparams import parse_pdparams

#: Tensors by name, as `nn.Module.state_dict` gives them.
StateDict = dict[str, Tensor]

_SUFFIXES = (".safetensors", ".pdparams", ".pth", ".pt")
_COUNTER = "num_batches_tracked"
#: What the keys of the auxiliary head begin with, which only training reads.
AUX = "seghead_extra."


def load_weights(path: Path) -> StateDict:
    """A .safetensors, .pdparams or .pth/.pt file -> tensors by torch's key names, on the CPU, in the file's types. Raises WeightsError."""
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise WeightsError(f"{path} has none of the suffixes of weights: {', '.join(_SUFFIXES)}.")
    data = read_bytes(path, WeightsError, "weights")
    if suffix == ".pdparams":
        return _from_paddle(parse_pdparams(data, str(path)))
    if suffix == ".safetensors":
        try:
            return dict(safetensors.torch.load(data))
        except Exception as error:  # SafetensorError, and whatever a damaged header leads to
            raise WeightsError(f"{path} is not a safetensors file, or was cut short: {error}.") from error
    return _from_torch(path)


def read_metadata(path: Path) -> dict[str, str]:
    """The text that a safetensors file carries about itself; empty if it carries none. Raises WeightsError."""
    try:
        with safetensors.safe_open(path, "np") as file:
            return dict(file.metadata() or {})
    except Exception as error:
        raise WeightsError(f"{path} is not a safetensors file: {error}.") from error


def save_weights(state: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Writes tensors and metadata as one safetensors file, whole or not at all; batch counters are left out."""
    tensors = {key: value.contiguous() for key, value in state.items() if not key.endswith(_COUNTER)}
    write_atomic(path, safetensors.torch.save(tensors, dict(metadata)))


def load_into(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copies weights into a network; raises one WeightsError that lists every missing, unexpected and misshapen key.

    The auxiliary head may be missing or left over as a whole: only training reads it.
    """
    wanted = {key: value for key, value in network.state_dict().items() if not key.endswith(_COUNTER)}
    loaded = {key: value for key, value in state.items() if not key.endswith(_COUNTER)}
    if not (_keys_of(wanted, AUX) and _keys_of(loaded, AUX)):
        wanted = {key: value for key, value in wanted.items() if not key.startswith(AUX)}
        loaded = {key: value for key, value in loaded.items() if not key.startswith(AUX)}
    problems = [
        *_listed("missing", sorted(wanted.keys() - loaded.keys())),
        *_listed("unexpected", sorted(loaded.keys() - wanted.keys())),
        *_listed("misshapen", _misshapen(wanted, loaded)),
    ]
    if problems:
        raise WeightsError(
            f"{source} does not fit this network:\n" + "\n".join(problems), "Name the recipe the weights were trained with: --recipe."
        )
    with torch.no_grad():
        for key, target in wanted.items():
            target.copy_(loaded[key])


def weights_hash(network: nn.Module, arch: Mapping[str, Any]) -> str:
    """SHA-256 of the weights that inference reads (as float32) and of the configuration that shapes them; independent of files."""
    digest = hashlib.sha256(json.dumps(dict(arch), sort_keys=True).encode())
    for key, value in sorted(network.state_dict().items()):
        if not key.endswith(_COUNTER) and not key.startswith(AUX):
            digest.update(f"{key}{list(value.shape)}".encode())
            digest.update(value.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()


def classes_of(state: Mapping[str, Tensor]) -> int | None:
    """The number of classes that a set of RTFormer weights was trained for; None if its last convolution is missing."""
    last = state.get("seghead.conv2.weight")
    return None if last is None else int(last.shape[0])


def _from_paddle(arrays: Mapping[str, np.ndarray[Any, Any]]) -> StateDict:
    """Paddle's names for running statistics to torch's. The network has no Linear layer, so nothing is transposed."""
    renamed = {key.replace("._mean", ".running_mean").replace("._variance", ".running_var"): value for key, value in arrays.items()}
    return {key: torch.from_numpy(np.array(value, value.dtype.newbyteorder("="))) for key, value in renamed.items()}


def _from_torch(path: Path) -> StateDict:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(f"{path} is refused: it is not a file of plain PyTorch weights ({first_line(error)}).") from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(f"{path} does not hold tensors by name.", "Save network.state_dict().")
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def _keys_of(state: Mapping[str, Tensor], prefix: str) -> bool:
    return any(key.startswith(prefix) for key in state)


def _misshapen(wanted: Mapping[str, Tensor], loaded: Mapping[str, Tensor]) -> list[str]:
    both = sorted(wanted.keys() & loaded.keys())
    return [f"{k} is {list(loaded[k].shape)}, not {list(wanted[k].shape)}" for k in both if loaded[k].shape != wanted[k].shape]


def _listed(title: str, keys: list[str]) -> list[str]:
    """One block of the message, every key on its line."""
    return [f"  {title} ({len(keys)}):", *(f"    {key}" for key in keys)] if keys else []
