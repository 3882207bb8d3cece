"""Networks, one file per architecture; `build_network` makes one from a recipe's [architecture]."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from ..errors import RecipeError
from .rtformer import RTFormer

ARCHITECTURES = {"rtformer": RTFormer}


def build_network(arch: Mapping[str, Any], classes: int, *, aux: bool = True) -> nn.Module:
    """An architecture's name and configuration -> the network with fresh weights, for `classes` classes. Raises RecipeError."""
    options = dict(arch)
    name = options.pop("name", None)
    if name not in ARCHITECTURES:
        raise _unknown(name)
    try:
        return ARCHITECTURES[name](classes, aux=aux, **options)
    except TypeError as error:
        raise RecipeError(f"The architecture {name} does not take this configuration: {error}.") from error


def full_configuration(arch: Mapping[str, Any]) -> dict[str, Any]:
    """An architecture's name and configuration -> the same with every default written out. Raises RecipeError."""
    if arch.get("name") not in ARCHITECTURES:
        raise _unknown(arch.get("name"))
    parameters = inspect.signature(ARCHITECTURES[arch["name"]]).parameters.values()
    defaults = {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY and each.name != "aux"}
    return defaults | dict(arch)


def _unknown(name: object) -> RecipeError:
    return RecipeError(f"There is no architecture {name!r}.", f"There are: {', '.join(ARCHITECTURES)}.")


__all__ = ["ARCHITECTURES", "RTFormer", "build_network", "full_configuration"]
