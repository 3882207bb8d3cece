"""A recipe's [build] table -> the mix of precisions that an engine is to have, and what the mix was tuned with.

[build]
precision = "int8"           what the engine is built as; "fp16" and "fp32" are mixes too
keep = ["layer1.0.bn1"]      convolutions that INT8 leaves out (globs): FP16 on TensorRT, FP32 on a CPU
fp32 = ["layer1.0.bn1"]      operators that TensorRT computes in FP32 (globs); on a CPU what is not INT8 is FP32 anyway
ranges = "ranges.json"       beside the recipe; without it the ranges that come with the project
backend, weights_sha256, ranges_sha256    what the mix was tuned on (earlier versions wrote model_sha256 for weights_sha256)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CalibrationError, RecipeError
from ..types import PrecisionName, Ranges
from .ranges import load_ranges, ranges_hash
from .recipe import Recipe, load_recipe

_KEYS = frozenset({"keep", "fp32", "ranges", "backend", "weights_sha256", "model_sha256", "ranges_sha256"})


@dataclass(frozen=True, slots=True)
class Mix:
    """What an engine is built as; `keep` and `fp32` are globs of operator names."""

    precision: PrecisionName = "fp32"
    keep: tuple[str, ...] = ()
    fp32: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RecipeBuild:
    """How a recipe wants its engine built. `weights_sha256` (None: not said) is the model's, as in Ranges."""

    recipe: Recipe
    mix: Mix
    ranges: Path | None = None
    ranges_sha256: str | None = None
    weights_sha256: str | None = None
    backend: str | None = None


def read_build(name: str) -> RecipeBuild:
    """A recipe's name or TOML file -> how its engine is built. Raises RecipeError."""
    recipe = load_recipe(name)
    unknown = set(recipe.options) - _KEYS
    if unknown:
        raise RecipeError(f"{name}: [build] has keys that mean nothing: {', '.join(sorted(unknown))}.")
    ranges = _text(recipe, "ranges", name)
    return RecipeBuild(
        recipe=recipe,
        mix=Mix(recipe.precision, _names(recipe, "keep", name), _names(recipe, "fp32", name)),
        ranges=None if ranges is None else Path(name).parent / ranges,
        ranges_sha256=_text(recipe, "ranges_sha256", name),
        weights_sha256=_text(recipe, "weights_sha256", name) or _text(recipe, "model_sha256", name),
        backend=_text(recipe, "backend", name),
    )


def check_model(build: RecipeBuild, name: str, weights_sha256: str) -> None:
    """Raises RecipeError where a recipe is another model's: by hash where it says one, else by name."""
    if build.weights_sha256 not in (None, weights_sha256):
        raise RecipeError(
            f"The mix was tuned for other weights or another configuration ({str(build.weights_sha256)[:12]}); the model is {name},"
            f" {weights_sha256[:12]}.",
            "Tune this model: rtformer-deploy tune.",
        )
    if build.weights_sha256 is None and build.recipe.name != name:
        raise RecipeError(f"The recipe is {build.recipe.name}'s; the model is {name}.")


def ranges_of_build(build: RecipeBuild) -> Ranges | None:
    """The ranges file that a recipe names; None where it names none. Raises CalibrationError where it is not the one it was tuned with."""
    if build.ranges is None:
        return None
    ranges = load_ranges(build.ranges)
    if build.ranges_sha256 not in (None, ranges_hash(ranges)):
        raise CalibrationError(f"{build.ranges} is not the ranges file that the mix was tuned with.", "Tune again: rtformer-deploy tune.")
    return ranges


def _names(recipe: Recipe, key: str, name: str) -> tuple[str, ...]:
    value: Any = recipe.options.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise RecipeError(f"{name}: [build] {key} is not a list of operator names.")
    return tuple(value)


def _text(recipe: Recipe, key: str, name: str) -> str | None:
    value: Any = recipe.options.get(key)
    if value is not None and not isinstance(value, str):
        raise RecipeError(f"{name}: [build] {key} is not a text.")
    return value
