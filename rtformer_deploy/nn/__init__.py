"""Networks, one file per architecture; `build_network` makes one from a recipe's [architecture]."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import nn

from ..errors import RecipeError, shorten
from ..formats.conversion import convert_known
from ..formats.documents import DocumentError
from .rtformer import RTFormer, RTFormerConfig

#: name -> the network and the type of its configuration, whose bounds keep the network within memory
ARCHITECTURES = {"rtformer": (RTFormer, RTFormerConfig)}


def build_network(arch: Mapping[str, Any], classes: int, *, aux: bool = True) -> nn.Module:
    """An architecture's name and configuration -> the network with fresh weights, for `classes` classes. Raises RecipeError."""
    options = dict(arch)
    name = options.pop("name", None)
    network, kind = _row(name)
    try:
        config = convert_known(options, kind)
        config.check()
    except DocumentError as error:
        raise RecipeError(f"The architecture {name} does not take this configuration: {error}.") from error
    return network(classes, aux=aux, **{each.name: getattr(config, each.name) for each in dataclasses.fields(config)})


def full_configuration(arch: Mapping[str, Any]) -> dict[str, Any]:
    """An architecture's name and configuration -> the same with every default written out. Raises RecipeError."""
    _, kind = _row(arch.get("name"))
    return {each.name: each.default for each in dataclasses.fields(kind)} | dict(arch)


def _row(name: object) -> tuple[type[RTFormer], type[RTFormerConfig]]:
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise RecipeError(f"There is no architecture {shorten(repr(name))}.", f"There are: {', '.join(ARCHITECTURES)}.")
    return ARCHITECTURES[name]


__all__ = ["ARCHITECTURES", "RTFormer", "RTFormerConfig", "build_network", "full_configuration"]
