"""Networks, one file per architecture; `build_network` makes one from a recipe's [architecture]."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..errors import RecipeError, shorten
from . import ddrnet, rtformer, segformer, stdc
from .architecture import Architecture, Auxiliary, StateDict
from .foreign import Translated, after, unwrap
from .rtformer import RTFormer, RTFormerConfig

#: name -> everything that the project knows of the network
ARCHITECTURES: dict[str, Architecture] = {
    row.name: row for row in (rtformer.ARCHITECTURE, ddrnet.ARCHITECTURE, stdc.ARCHITECTURE, segformer.ARCHITECTURE)
}


_INPLACE = "{} norms of the heads got |weight| + 0.00001 as their weight, as InPlaceABNSync computes."
_PLAIN = "The norms of the heads count their batches, as plain ones do and InPlaceABNSync does not: their weights stay as they are."


def architecture_row(arch: Mapping[str, Any]) -> Architecture:
    """A recipe's [architecture] -> the row of its network. Raises RecipeError."""
    name = arch.get("name")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise RecipeError(f"There is no architecture {shorten(repr(name))}.", f"There are: {', '.join(ARCHITECTURES)}.")
    return ARCHITECTURES[name]


def architecture_of(network: nn.Module) -> Architecture | None:
    """A network -> its row; None if it is none of the project's."""
    return next((row for row in ARCHITECTURES.values() if type(network) is row.network), None)


def build_network(arch: Mapping[str, Any], classes: int, *, aux: bool = True) -> nn.Module:
    """An architecture's name and configuration -> the network with fresh weights, for `classes` classes. Raises RecipeError."""
    row = architecture_row(arch)
    return row.build(classes, row.options(_options(arch)), aux=aux)


def auxiliaries_of(arch: Mapping[str, Any]) -> tuple[Auxiliary, ...]:
    """An architecture's name and configuration -> what the outputs behind its logits are for while training. Raises RecipeError."""
    row = architecture_row(arch)
    return row.auxiliaries_of(row.options(_options(arch)))


def full_configuration(arch: Mapping[str, Any]) -> dict[str, Any]:
    """An architecture's name and configuration -> the same with every default written out. Raises RecipeError."""
    fields = dataclasses.fields(architecture_row(arch).config)
    return {each.name: each.default for each in fields} | dict(arch)


def inference_configuration(arch: Mapping[str, Any]) -> dict[str, Any]:
    """As `full_configuration`, without what only training uses: weights with other values are the same network. Raises RecipeError."""
    left_out = architecture_row(arch).training_only
    return {key: value for key, value in full_configuration(arch).items() if key not in left_out}


def translate(state: Mapping[str, Tensor], arch: Mapping[str, Any], *, inplace_norms: bool = False) -> Translated:
    """Tensors of a checkpoint of any project -> the same by the keys of this architecture's network. Raises RecipeError.

    `inplace_norms` says that checkpoints with the official keys were trained with InPlaceABNSync.
    """
    row = architecture_row(arch)
    unwrapped = unwrap(state)
    renamed = row.translate(unwrapped.weights, row.options(_options(arch)))
    translated = after(unwrapped, renamed if isinstance(renamed, Translated) else Translated(renamed))
    if not inplace_norms or translated.paddle:
        return translated
    if row.inplace_norms is None:
        raise RecipeError(f"No checkpoint of {row.name} was trained with in-place norms.", "Leave inplace_norms out of [import].")
    weights, count = row.inplace_norms(translated.weights)
    return dataclasses.replace(translated, weights=weights).noting(_INPLACE.format(count) if count else _PLAIN)


def _options(arch: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in arch.items() if key != "name"}


__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Auxiliary",
    "RTFormer",
    "RTFormerConfig",
    "StateDict",
    "Translated",
    "architecture_of",
    "architecture_row",
    "build_network",
    "full_configuration",
    "inference_configuration",
    "translate",
]
