"""What a weights file says about its network, and whether that agrees with the recipe that the user named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import WeightsError, shorten
from ..formats.model_file import SPEC_KEY
from ..formats.preprocessing import prepared
from ..formats.recipe import Recipe, load_recipe, numbered_labels, recipe_names, recipes_of
from ..formats.safetensors_file import is_weights
from ..formats.weights_file import recipe_in
from ..nn import inference_configuration
from ..nn.weights import read_metadata

_MOST_NAMES = 5


def described_recipe(weights: Path) -> Recipe | None:
    """The recipe that a weights file describes itself; None for an older file, or one of another kind. Raises WeightsError."""
    return recipe_in(_metadata(weights), str(weights))


def named_recipe(weights: Path) -> Recipe | None:
    """The recipe of the project that an older weights file names; None if it names none. Raises WeightsError for an unknown name."""
    name = _metadata(weights).get("recipe")
    if name is None:
        return None
    if name not in recipe_names():
        raise WeightsError(
            f"{weights} names the recipe {shorten(name)!r}, which does not come with the project.",
            f"Name its file once, the copy then says what it is: rtformer-deploy import-weights {weights} --recipe FILE.toml",
        )
    return load_recipe(name)


def is_own(weights: Path) -> bool:
    """Whether this project wrote a weights file, so that its keys are ours. Raises WeightsError."""
    return not {SPEC_KEY, "recipe"}.isdisjoint(_metadata(weights))


def check_named(described: Recipe, name: str, weights: Path) -> Recipe:
    """Weights that say what they are, and the recipe that the user named -> the recipe, with the architecture as the weights have it.

    Classes that have numbers alone get the recipe's names, if it has as many. Raises WeightsError if the two differ in what decides the
    results.
    """
    named = load_recipe(name)
    count = len(described.labels.names)
    if described.labels.names == numbered_labels(count).names:
        labels = named.labels if len(named.labels.names) == count else described.labels
        described, named = replace(described, labels=labels), replace(named, labels=labels)
    different = _differences(described, named)
    if different:
        raise WeightsError(
            f"{weights} says what its weights are, and the recipe {name} says otherwise: {'; '.join(different)}.",
            "Leave --recipe out: the weights need none.",
        )
    return replace(named, arch=described.arch)


def check_variant(described: Recipe, variant: str, weights: Path) -> Recipe:
    """As `check_named`, for a variant: its recipes differ in their labels only, and those are what the weights say."""
    recipes = recipes_of(variant)
    if not any(_network(described.arch) == _network(known.arch) for known in recipes):
        raise WeightsError(
            f"{weights} says what its weights are ({described.name}), and no {variant!r} is like that.",
            "Leave --variant out: the weights need none.",
        )
    return described


def _metadata(weights: Path) -> dict[str, str]:
    return read_metadata(weights) if is_weights(weights) else {}


def _differences(described: Recipe, named: Recipe) -> list[str]:
    """One text for each thing that differs, the weights' first."""
    pairs: dict[str, tuple[object, object]] = {"classes": (described.labels.names, named.labels.names)}
    ways = prepared(named)
    pairs |= {key: (value, ways[key]) for key, value in prepared(described).items()}
    one, other = _network(described.arch), _network(named.arch)
    pairs |= {key: (one.get(key), other.get(key)) for key in sorted(one.keys() | other.keys())}
    return [f"{key} {_text(mine)}, not {_text(theirs)}" for key, (mine, theirs) in pairs.items() if mine != theirs]


def _network(arch: Mapping[str, Any]) -> dict[str, Any]:
    """An architecture with its defaults and without what only training uses, as JSON has it: tuples and lists are the same."""
    whole: dict[str, Any] = json.loads(json.dumps(inference_configuration(arch), default=str))
    return whole


def _text(value: object) -> str:
    if not isinstance(value, tuple):
        return shorten(str(value))
    more = f", ... ({len(value)})" if len(value) > _MOST_NAMES else ""
    return shorten(", ".join(map(str, value[:_MOST_NAMES])) + more)
