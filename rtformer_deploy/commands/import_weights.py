"""Weights from elsewhere, checked against a recipe's network, as one safetensors file that names its recipe."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import WeightsError
from ..files import read_bytes, sha256
from ..formats.recipe import load_recipe
from ..nn import build_network
from ..nn.weights import State, check_values, classes_of, load_into, load_weights, save_weights


@dataclass(frozen=True, slots=True)
class Imported:
    """Checked tensors and what the file will say about itself; `parameters` leaves out the auxiliary head and the running statistics."""

    state: State
    metadata: dict[str, str]
    recipe: str
    classes: int
    parameters: int

    def save(self, path: Path) -> None:
        """Writes the safetensors file, whole or not at all."""
        save_weights(self.state, path, self.metadata)


def import_weights(file: Path, recipe: str, classes: int | None = None, half: bool = False) -> Imported:
    """A .pdparams, .pth or .safetensors file -> checked weights of `recipe`'s network.

    Raises WeightsError with every key that does not fit.
    """
    found = load_recipe(recipe)
    state = load_weights(file)
    count = classes if classes is not None else len(found.labels.names)
    given = classes_of(state)
    if given is not None and given != count:
        raise WeightsError(f"{file} gives {given} classes, {recipe} has {count}.", f"Add --num-classes {given}, or name their recipe.")
    network = build_network(found.arch, count)
    load_into(network, state, str(file))
    kept = {key: value.half() if half and value.is_floating_point() else value for key, value in state.items()}
    if half:
        check_values(kept, f"{file}, rounded to FP16,")
    metadata = {
        "recipe": found.name,
        "classes": str(count),
        "arch": json.dumps(dict(found.arch), sort_keys=True),
        "source": file.name,
        "source_sha256": sha256(read_bytes(file, WeightsError, "weights")),
    }
    parameters = sum(value.numel() for key, value in network.named_parameters() if not key.startswith("seghead_extra."))
    return Imported(
        {key: value.to(torch.float32) if value.dtype == torch.float64 else value for key, value in kept.items()},
        metadata,
        found.name,
        count,
        parameters,
    )
