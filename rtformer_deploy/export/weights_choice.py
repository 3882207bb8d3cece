"""Chooses the network of an export: its recipe, weights and labels, from the user's options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..errors import UsageError, WeightsError
from ..files import read_bytes, sha256
from ..formats.recipe import Labels, Recipe, load_recipe, numbered_labels, recipes_of, variants
from ..nn import StateDict, Translated, architecture_row, build_network
from ..nn.weights import load_into, load_weights, weights_hash
from ..types import Head, ModelSpec, Say
from .foreign import naming_the_network, read_weights
from .recorded import check_named, check_variant, described_recipe, named_recipe

#: The size of the images that give random weights their running statistics.
_SETTLING = (256, 512)


@dataclass(frozen=True, slots=True)
class Choice:
    """A network with its weights, the recipe it follows, its labels, and where the weights are from, with their hash."""

    network: nn.Module
    recipe: Recipe
    labels: Labels
    origin: str
    sha256: str

    def spec(self, *, size: tuple[int, int] | None = None, batch: int | str = 1, head: Head = "lowres") -> ModelSpec:
        """The ModelSpec of an export of this network; `size` None is the recipe's. Raises RecipeError if the network takes no such size."""
        row = architecture_row(self.recipe.arch)
        row.check_size(size or self.recipe.size)
        return self.recipe.spec(
            size=size, batch=batch, head=head, stride=row.stride, labels=self.labels, weights=self.origin, sha256=self.sha256
        )

    def nearest_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (H, W) nearest to `size` that the network takes."""
        return architecture_row(self.recipe.arch).nearest_size(size)


def choose_network(
    *,
    recipe: str | None = None,
    variant: str | None = None,
    weights: Path | None = None,
    classes: int | None = None,
    random_seed: int | None = None,
    say: Say = lambda line: None,
) -> Choice:
    """The network of a recipe with its weights. Weights that say what they are need neither a recipe nor a variant.

    Without `weights` the weights that ship with the recipe are used; `random_seed` makes random ones instead. A variant alone means the
    recipe with shipped weights, or with random weights the published Cityscapes configuration; `say` gets a line about the choice. Raises
    RecipeError, UsageError, and WeightsError if there are no weights, or if they are another network's than was named.
    """
    if weights is not None and random_seed is not None:
        raise UsageError("--weights and --random-weights cannot be combined.")
    if recipe is not None and variant is not None:
        raise UsageError("--recipe and --variant cannot be combined.")
    chosen = _recipe(recipe, variant, weights, random_seed, say)
    if random_seed is not None:
        return random_network(chosen, random_seed, classes)
    file = weights or _shipped(chosen)
    read = read_weights(file, chosen)
    for note in read.notes:
        say(note)
    with naming_the_network(file, chosen):
        return _with_weights(chosen, _labels(chosen, classes, read.weights, file), read, file)


def network_in(path: Path) -> Choice:
    """A safetensors file -> the network that it says it holds. An older file may name a recipe with other classes: then they get numbers.

    Raises WeightsError if the file does not say which network it holds, or says something else than it holds.
    """
    described = described_recipe(path)
    recipe = described or named_recipe(path)
    if recipe is None:
        raise WeightsError(
            f"{path} does not say which network its weights belong to.",
            f"Name its recipe once, the copy then says it: rtformer-deploy import-weights {path} --recipe NAME",
        )
    state = load_weights(path)
    hint = f"Say again what they are: rtformer-deploy import-weights {path} --recipe NAME"
    labels = _labels(recipe, None if described else architecture_row(recipe.arch).classes_of(state), state, path, hint)
    return _with_weights(recipe, labels, state, path)


def random_network(recipe: Recipe, seed: int, classes: int | None = None) -> Choice:
    """A recipe's network with random weights, the same for the same seed; `classes` None is the recipe's. Raises RecipeError."""
    labels = _labels(recipe, classes, None, Path())
    torch.manual_seed(seed)
    network = build_network(recipe.arch, len(labels.names), aux=False).eval()
    settle_statistics(network, architecture_row(recipe.arch).nearest_size(_SETTLING), seed)
    return Choice(network, recipe, labels, f"random, seed {seed}", weights_hash(network, recipe.arch))


def settle_statistics(network: nn.Module, size: tuple[int, int], seed: int) -> None:
    """One seeded batch of a size runs through a network of random weights: its running statistics fit, and activations stay small."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        network.train()(torch.randn(2, 3, *size, generator=draw))
    network.eval()


def _recipe(name: str | None, variant: str | None, weights: Path | None, random_seed: int | None, say: Say) -> Recipe:
    described = None if weights is None else described_recipe(weights)
    if weights is not None and described is not None:
        if name is not None:
            return check_named(described, name, weights)
        say(f"The weights say what they are: {described.name}, {len(described.labels.names)} classes.")
        return described if variant is None else check_variant(described, variant, weights)
    if name is not None:
        return load_recipe(name)
    named = None if weights is None else named_recipe(weights)
    if named is not None and variant in (None, named.variant):
        say(f"The weights name their recipe: {named.name}.")
        return named
    if variant is None:
        raise UsageError(f"Name what to export: --variant {'|'.join(variants())}, or --recipe NAME.")
    recipes = recipes_of(variant)
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


def _with_weights(recipe: Recipe, labels: Labels, state: StateDict | Translated, file: Path) -> Choice:
    network = build_network(recipe.arch, len(labels.names), aux=False).eval()
    load_into(network, state, str(file))
    return Choice(network, recipe, labels, file.name, weights_hash(network, recipe.arch))


def _labels(recipe: Recipe, classes: int | None, state: StateDict | None, file: Path, hint: str | None = None) -> Labels:
    """The recipe's labels, or numbered ones if another number of `classes` is wanted. Raises WeightsError if the weights give another."""
    count = classes if classes is not None else len(recipe.labels.names)
    own = None if state is None else architecture_row(recipe.arch).classes_of(state)
    if own is not None and own != count:
        asked = f"{file} gives {own} classes; {count} were asked for ({recipe.name})."
        raise WeightsError(asked, hint or f"Add --num-classes {own}, or name their recipe.")
    return recipe.labels if count == len(recipe.labels.names) else numbered_labels(count)
