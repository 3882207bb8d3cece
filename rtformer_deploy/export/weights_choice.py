"""Chooses the network of an export: its recipe, weights and labels, from the user's options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..errors import RecipeError, UsageError, WeightsError
from ..files import read_bytes, sha256
from ..formats.recipe import Labels, Recipe, load_recipe, numbered_labels, recipe_names
from ..nn import build_network
from ..nn.weights import StateDict, classes_of, load_into, load_weights, read_metadata, weights_hash
from ..types import Say


@dataclass(frozen=True, slots=True)
class Choice:
    """A network with its weights, the recipe it follows, its labels, and where the weights are from, with their hash."""

    network: nn.Module
    recipe: Recipe
    labels: Labels
    origin: str
    sha256: str


def choose_network(
    *,
    recipe: str | None = None,
    variant: str | None = None,
    weights: Path | None = None,
    classes: int | None = None,
    random_seed: int | None = None,
    say: Say = lambda line: None,
) -> Choice:
    """The network of a recipe with its weights. The recipe may also follow from a variant or a weights file.

    Without `weights` the weights that ship with the recipe are used; `random_seed` makes random ones instead. A variant alone means the
    recipe with shipped weights, or with random weights the published Cityscapes configuration; `say` gets a line about the choice. Raises
    RecipeError, UsageError, and WeightsError if there are no weights.
    """
    if weights is not None and random_seed is not None:
        raise UsageError("--weights and --random-weights cannot be combined.")
    model_recipe = _recipe(recipe, variant, weights, random_seed, say)
    if weights is None and random_seed is None:
        weights = _shipped(model_recipe)
    state = None if weights is None else load_weights(weights)
    labels = _labels(model_recipe, classes, state, str(weights))
    torch.manual_seed(random_seed or 0)
    network = build_network(model_recipe.arch, len(labels.names), aux=False).eval()
    if state is None:
        origin = f"random, seed {random_seed or 0}"
        settle_statistics(network, random_seed or 0)
    else:
        origin = str(weights.name) if weights is not None else ""
        load_into(network, state, str(weights))
    return Choice(network, model_recipe, labels, origin, weights_hash(network, model_recipe.arch))


def settle_statistics(network: nn.Module, seed: int) -> None:
    """Runs one seeded batch through a network of random weights, so that its running statistics fit and activations stay small."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        network.train()(torch.randn(2, 3, 256, 512, generator=draw))
    network.eval()


def _recipe(name: str | None, variant: str | None, weights: Path | None, random_seed: int | None, say: Say) -> Recipe:
    if name is not None and variant is not None:
        raise UsageError("--recipe and --variant cannot be combined.")
    if name is None and weights is not None and weights.suffix == ".safetensors" and weights.is_file():
        recipe_name = read_metadata(weights).get("recipe")
        if recipe_name is not None and (variant is None or f"-{variant}-" in recipe_name):
            say(f"The weights name their recipe: {recipe_name}.")
            return load_recipe(recipe_name)
    if name is not None:
        return load_recipe(name)
    if variant is None:
        raise UsageError("Name what to export: --variant slim|base, or --recipe NAME.")
    recipes = [load_recipe(known) for known in recipe_names() if f"-{variant}-" in known]
    if not recipes:
        raise RecipeError(f"There is no recipe of the variant {variant!r}.")
    with_weights = [known for known in recipes if known.weights is not None]
    if with_weights and weights is None and random_seed is None:
        say(f"Taking the recipe {with_weights[0].name}, whose weights are shipped.")
        return with_weights[0]
    return next((known for known in recipes if known.dataset == "cityscapes"), recipes[0])


def _shipped(recipe: Recipe) -> Path:
    """The path of the recipe's weights, after checking their hash. Raises WeightsError."""
    if recipe.weights is None:
        hint = "Give them with --weights FILE, or take --random-weights for a dry run."
        raise WeightsError(f"No weights are shipped for {recipe.name}.", hint)
    path = recipe.weights
    if recipe.weights_sha256 not in (None, sha256(read_bytes(path, WeightsError, "the recipe's weights"))):
        hint = "Install the package again."
        raise WeightsError(f"{path} is not the file that the recipe {recipe.name} names: its SHA-256 differs.", hint)
    return path


def _labels(recipe: Recipe, classes: int | None, state: StateDict | None, source: str) -> Labels:
    """The recipe's labels, or numbered ones if another number of classes is wanted."""
    count = classes if classes is not None else len(recipe.labels.names)
    own = None if state is None else classes_of(state)
    if own is not None and own != count:
        hint = f"Add --num-classes {own}, or name their recipe."
        raise WeightsError(f"{source} gives {own} classes; {count} were asked for ({recipe.name}).", hint)
    return recipe.labels if count == len(recipe.labels.names) else numbered_labels(count)
