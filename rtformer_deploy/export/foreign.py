"""Weights of any origin -> tensors by the keys of a recipe's network; and whose weights they are, if they do not fit it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import MissingPackageError, WeightsError
from ..formats.recipe import Recipe, load_recipe, recipe_names
from ..nn import Translated, architecture_row, build_network, inference_configuration, translate
from ..nn.weights import fitting_share, load_weights
from .recorded import is_own

#: Weights look like another network's if this share of the keys fits it.
_ALIKE = 0.9


def read_weights(file: Path, recipe: Recipe) -> Translated:
    """A file of weights -> its tensors by the keys of the recipe's network. Raises WeightsError.

    What this project wrote has these keys already. Another project's checkpoint is translated, by the rules of the recipe's [import].
    """
    state = load_weights(file)
    return Translated(state) if is_own(file) else translate(state, recipe.arch, inplace_norms=recipe.inplace_norms)


@contextmanager
def naming_the_network(file: Path, recipe: Recipe) -> Iterator[None]:
    """Where weights are loaded into a recipe's network: if they do not fit but are another recipe's, the WeightsError begins with that."""
    try:
        yield
    except WeightsError as error:
        other = whose(load_weights(file), recipe) if error.details else None  # what lists no keys is about something else
        if other is None:
            raise
        named = f"{other.name} ({other.variant})" if other.variant else other.name
        hint = f"Name the recipe they belong to: --recipe {other.name}"
        what = f"{file} does not fit this network: its keys and shapes are those of {named}. Beside {recipe.name}:"
        raise WeightsError(what, hint, details=error.details) from error


def whose(state: Mapping[str, Tensor], besides: Recipe) -> Recipe | None:
    """Weights that do not fit a recipe -> the recipe that comes with the project whose network they fit, almost at least."""
    recipes = [load_recipe(name) for name in recipe_names()]
    shares: dict[str, float] = {}
    for recipe in recipes:
        network = _network(recipe.arch)
        if network not in shares and network != _network(besides.arch):
            shares[network] = _share(state, recipe)
    best = max(shares, key=lambda network: shares[network], default="")
    if shares.get(best, 0.0) < max(_ALIKE, _share(state, besides)):
        return None
    alike = [recipe for recipe in recipes if _network(recipe.arch) == best]
    classes = architecture_row(alike[0].arch).classes_of(translate(state, alike[0].arch).weights)
    return next((recipe for recipe in alike if len(recipe.labels.names) == classes), alike[0])


class _WithoutValues(TorchFunctionMode):
    """Leaves out the initial values of networks made within. On the device "meta" they have none, but it takes seconds to find that out."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.normal_ or getattr(func, "__module__", None) == nn.init.__name__:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _share(state: Mapping[str, Tensor], recipe: Recipe) -> float:
    """How much of the weights and of the recipe's network are the same; 0 if its library is not installed here."""
    weights = translate(state, recipe.arch).weights
    classes = architecture_row(recipe.arch).classes_of(weights) or len(recipe.labels.names)
    try:
        with torch.device("meta"), _WithoutValues():
            return fitting_share(build_network(recipe.arch, classes), weights)
    except MissingPackageError:
        return 0.0


def _network(arch: Mapping[str, Any]) -> str:
    return str(sorted(inference_configuration(arch).items()))
