"""Reads weights from three kinds of files, hashes them, and loads them into a network. One message lists every mismatch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from ..errors import WeightsError, shorten
from ..files import MODEL_BYTES, read_bytes, write_atomic
from ..formats.safetensors_file import SUFFIXES, check_header, is_weights, not_safetensors, pack, read_header, read_safetensors
from . import architecture_of
from .architecture import StateDict
from .foreign import Translated
from .pdparams import parse_pdparams
from .torch_file import parse_torch

_SUFFIXES = (*SUFFIXES, ".pdparams", ".pth", ".pt", ".bin")
_COUNTER = "num_batches_tracked"
_MOST_AXES = 8
_LONGEST_KEY = 200
_MOST_LISTED = 1000
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64, torch.uint64)


def load_weights(path: Path) -> StateDict:
    """A .safetensors, .pdparams or .pth/.pt/.bin file -> tensors by torch's key names, on the CPU, in the file's types.

    A .safetensors file may be compressed (.safetensors.xz). Raises WeightsError, also if a value is not a finite number. No code in the
    file runs, and reading takes at most a few times the size of the file, decompressed, in memory.
    """
    path = Path(path)
    if not path.name.lower().endswith(_SUFFIXES):
        raise WeightsError(f"{path} has none of the suffixes of weights: {', '.join(_SUFFIXES)}.")
    state = _read(path)
    check_values(state, str(path))
    return state


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file; empty if it has none. Raises WeightsError."""
    return read_header(path).metadata


def check_values(state: Mapping[str, Tensor], source: str) -> None:
    """Raises one WeightsError that lists every tensor that cannot be weights: complex, boolean, not finite in float32, badly named."""
    faults: dict[str, list[str]] = {}
    for key, value in state.items():
        fault = _fault_of_name(key) or _fault_of_value(value)
        if fault is not None:
            faults.setdefault(fault, []).append(repr(shorten(key)))
    if faults:
        listed = [line for title, keys in faults.items() for line in _listed(title, keys)]
        raise WeightsError(f"{source} holds tensors that cannot be weights:", "Train or convert them again.", details=listed)


def save_weights(state: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Writes tensors and metadata as one safetensors file, compressed if the path ends with .xz, whole or not at all.

    Batch counters are left out.
    """
    tensors = {key: value.contiguous() for key, value in state.items() if not key.endswith(_COUNTER)}
    write_atomic(path, pack(safetensors.torch.save(tensors, dict(metadata)), path))


def load_into(network: nn.Module, state: Mapping[str, Tensor] | Translated, source: str) -> None:
    """Copies weights into a network; raises one WeightsError that lists every missing, unexpected and misshapen key.

    What only training uses may be missing as a whole on either side. Translated weights are spoken of by the keys in their file.
    """
    translated = state if isinstance(state, Translated) else Translated(dict(state))
    wanted, loaded = _compared(network, translated.weights)
    problems = [*_listed("second copies with other values", sorted(translated.differing)), *_misfits(wanted, loaded, translated.in_file)]
    if problems:
        hint = translated.hint or "Name the recipe the weights were trained with: --recipe."
        raise WeightsError(f"{source} does not fit this network:", hint, details=problems)
    with torch.no_grad():
        for key, target in wanted.items():
            target.copy_(loaded[key])


def fitting_share(network: nn.Module, state: Mapping[str, Tensor]) -> float:
    """The share of keys, a network's and the weights' together, that are in both and of one shape. 1: the weights fit."""
    wanted, loaded = _compared(network, state)
    fitting = sum(key in loaded and loaded[key].shape == value.shape for key, value in wanted.items())
    return fitting / max(1, len(wanted.keys() | loaded.keys()))


def weights_hash(network: nn.Module, arch: Mapping[str, Any]) -> str:
    """SHA-256 of the weights that inference uses (as float32) and of their configuration. It does not depend on the file."""
    digest = hashlib.sha256(json.dumps(dict(arch), sort_keys=True).encode())
    aux = _training_keys(network)
    for key, value in sorted(network.state_dict().items()):
        if not key.endswith(_COUNTER) and not key.startswith(aux):
            digest.update(f"{key}{list(value.shape)}".encode())
            digest.update(value.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path) -> StateDict:
    source = str(path)
    if is_weights(path):
        return _from_safetensors(read_safetensors(path), source)
    data = read_bytes(path, WeightsError, "weights", MODEL_BYTES)
    if path.suffix.lower() == ".pdparams":
        return _from_paddle(parse_pdparams(data, source), source)
    return _renamed(parse_torch(data, source), lambda key: key.removeprefix("module."), source)


def _from_paddle(arrays: Mapping[str, np.ndarray[Any, Any]], source: str) -> StateDict:
    """Renames Paddle's running statistics as torch does. The network has no Linear layer, so nothing is transposed."""
    tensors = {key: torch.from_numpy(np.array(value, value.dtype.newbyteorder("="))) for key, value in arrays.items()}
    return _renamed(tensors, lambda key: key.replace("._mean", ".running_mean").replace("._variance", ".running_var"), source)


def _from_safetensors(data: bytes, source: str) -> StateDict:
    check_header(data, len(data), source)
    try:
        return dict(safetensors.torch.load(data))
    except KeyError as error:  # a number type that the library cannot convert to torch's
        raise WeightsError(f"{source} holds values of the type {error.args[0]}, which weights do not have.") from error
    except Exception as error:  # SafetensorError, and whatever a damaged header leads to
        raise not_safetensors(source, error) from error


def _renamed(state: StateDict, rename: Callable[[str], str], source: str) -> StateDict:
    renamed = {rename(key): value for key, value in state.items()}
    if len(renamed) < len(state):
        raise WeightsError(f"{source} holds several tensors that would get the same name.")
    return renamed


def _fault_of_name(key: str) -> str | None:
    return None if 0 < len(key) <= _LONGEST_KEY and key.isprintable() else "with a name that is empty, too long or not printable"


def _fault_of_value(value: Tensor) -> str | None:
    if value.dim() > _MOST_AXES:
        return f"of more than {_MOST_AXES} axes"
    if value.is_complex():
        return "complex"
    if value.dtype == torch.bool:
        return "boolean"
    if value.dtype not in _FLOATS:
        return None if value.dtype in _INTEGERS else f"of the type {str(value.dtype).removeprefix('torch.')}"
    computed = value.float() if value.dtype == torch.float64 else value  # a network computes in float32
    return None if bool(torch.isfinite(computed).all()) else "not finite numbers"


def _training_keys(network: nn.Module) -> tuple[str, ...]:
    """How the keys begin that only training uses; nothing for a network that is none of the project's."""
    row = architecture_of(network)
    return () if row is None else row.aux


def _compared(network: nn.Module, state: Mapping[str, Tensor]) -> tuple[StateDict, StateDict]:
    """What a network has and what weights have, without counters and without each part for training that one of the two lacks."""
    wanted = {key: value for key, value in network.state_dict().items() if not key.endswith(_COUNTER)}
    loaded = {key: value for key, value in state.items() if not key.endswith(_COUNTER)}
    lacking = tuple(part for part in _training_keys(network) if not (_keys_of(wanted, part) and _keys_of(loaded, part)))
    if lacking:
        wanted = {key: value for key, value in wanted.items() if not key.startswith(lacking)}
        loaded = {key: value for key, value in loaded.items() if not key.startswith(lacking)}
    return wanted, loaded


def _keys_of(state: Mapping[str, Tensor], prefix: str) -> bool:
    return any(key.startswith(prefix) for key in state)


def _misfits(wanted: Mapping[str, Tensor], loaded: Mapping[str, Tensor], in_file: Callable[[str], str]) -> list[str]:
    """What does not fit, a block of lines for each kind; keys are given as the file has them."""
    both = wanted.keys() & loaded.keys()
    other_shape = [key for key in both if loaded[key].shape != wanted[key].shape]
    return [
        *_listed("missing", sorted(map(in_file, wanted.keys() - loaded.keys()))),
        *_listed("unexpected", sorted(map(in_file, loaded.keys() - wanted.keys()))),
        *_listed("misshapen", sorted(f"{in_file(k)} is {list(loaded[k].shape)}, not {list(wanted[k].shape)}" for k in other_shape)),
        *_listed("of integers", sorted(in_file(key) for key in both if not _same_kind(wanted[key], loaded[key]))),
    ]


def _same_kind(wanted: Tensor, loaded: Tensor) -> bool:
    return loaded.is_floating_point() or not wanted.is_floating_point()


def _listed(title: str, keys: list[str]) -> list[str]:
    """One block of the message, with a line for each key. A network has hundreds of keys, so a list of thousands is cut."""
    more = [f"    and {len(keys) - _MOST_LISTED:,} more"] if len(keys) > _MOST_LISTED else []
    return [f"  {title} ({len(keys)}):", *(f"    {key}" for key in keys[:_MOST_LISTED]), *more] if keys else []
