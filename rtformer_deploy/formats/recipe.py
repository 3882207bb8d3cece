"""Reads recipes: each describes one deployable. Recipes and dataset files are the only configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from ..content import content_dir
from ..errors import RecipeError, UsageError, shorten
from ..types import (
    BARE_KEY,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Arch,
    FileName,
    Head,
    Mean,
    ModelSpec,
    PathText,
    Resize,
    Scale,
    Sha256,
    Side,
    Std,
    TensorSpec,
    frame_size,
)
from .build_table import BuildFile, BuildTable, build_of
from .conversion import convert_known, convert_strict
from .dataset_file import Labels, load_labels, numbered_labels
from .documents import DocumentError, read_toml
from .explain import shown
from .model_spec import check_size
from .names import check_name, is_name
from .normalisation import normalisation_fault
from .preprocessing import prepared, preprocessing, scale_fault
from .published import Published

__all__ = [
    "Labels",
    "Recipe",
    "check_model",
    "load_labels",
    "load_recipe",
    "numbered_labels",
    "output_spec",
    "parse_recipe",
    "recipe_names",
    "recipes_of",
    "variants",
]

_IMPORT = "import"
_TUNE_IT = "Tune this model: rtformer-deploy tune."


@dataclass(frozen=True, slots=True)
class Recipe:
    """One deployable: architecture, labels, input, weights, and how its engine is built.

    `dataset` is a dataset's name, or the path of its TOML file; `size` is the input's (H, W); `weights` the path of the weights that come
    with it; `variant` what `--variant` calls its network. `mean` to `scale` are those of a ModelSpec. `inplace_norms` says that its
    official checkpoints were trained with InPlaceABNSync. `published` is what others give for it, by source.
    """

    name: str
    arch: Mapping[str, Any]
    dataset: str
    labels: Labels
    size: tuple[int, int]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    resize: Resize = "stretch"
    resize_corners: bool = False
    scale: float = 1.0
    weights: Path | None = None
    weights_sha256: str | None = None
    build: BuildTable = field(default_factory=BuildTable)
    variant: str | None = None
    inplace_norms: bool = False
    published: Mapping[str, Published] = field(default_factory=dict, compare=False)

    def spec(
        self,
        *,
        size: tuple[int, int] | None = None,
        batch: int | str = 1,
        head: Head = "lowres",
        stride: int = 8,
        labels: Labels | None = None,
        weights: str | None = None,
        sha256: str | None = None,
    ) -> ModelSpec:
        """The ModelSpec of an export of this recipe.

        `stride` is the network's; `labels` replaces the recipe's own if the class count differs.
        """
        height, width = size or self.size
        labels = labels or self.labels
        return ModelSpec(
            name=self.name,
            arch=self.arch,
            classes=labels.names,
            palette=labels.palette,
            input=TensorSpec("input", (batch, 3, height, width), "float32"),
            output=output_spec(head, len(labels.names), batch, (height, width), stride, scale=self.scale),
            head=head,
            mean=self.mean,
            std=self.std,
            resize=self.resize,
            resize_corners=self.resize_corners,
            scale=self.scale,
            weights=weights,
            sha256=sha256,
        )


@dataclass(frozen=True, slots=True)
class _Input:
    """[input]"""

    size: tuple[Side, Side]
    mean: tuple[Mean, Mean, Mean] = IMAGENET_MEAN
    std: tuple[Std, Std, Std] = IMAGENET_STD
    resize: Resize = "stretch"
    resize_corners: bool = False
    scale: Scale = 1.0


@dataclass(frozen=True, slots=True)
class _Weights:
    """[weights]"""

    file: PathText | None = None
    sha256: Sha256 | None = None


@dataclass(frozen=True, slots=True)
class _Import:
    """[import]: what is special about the checkpoints that other projects publish."""

    inplace_norms: bool = False


@dataclass(frozen=True, slots=True)
class _File:
    """A recipe file."""

    name: FileName
    dataset: PathText
    architecture: Arch
    input: _Input
    variant: FileName | None = None
    weights: _Weights = field(default_factory=_Weights)
    build: BuildFile = field(default_factory=BuildFile)
    published: Mapping[Annotated[str, Meta(pattern=BARE_KEY)], Published] = field(default_factory=dict)

    def check(self) -> None:
        """Raises DocumentError for what the types do not say."""
        check_name(self.name, "name")
        if not isinstance(self.architecture.get("name"), str):
            raise DocumentError("architecture has no name")
        check_size(*self.input.size, "input.size")
        check_size(*frame_size(self.input.size, self.input.scale), "input.size over input.scale")
        faults = (normalisation_fault(self.input.mean, self.input.std), scale_fault(self.input.size, self.input.scale))
        for fault in filter(None, faults):
            raise DocumentError(f"[input] {fault}")


def output_spec(head: Head, classes: int, batch: int | str, size: tuple[int, int], stride: int = 8, *, scale: float = 1.0) -> TensorSpec:
    """Name, shape and type of the output that a head gives: logits at the network's stride, or logits or uint8 labels of the frame's size.

    `size` is the input's, which is `scale` of the frame's.
    """
    height, width = size
    if head == "labels":
        return TensorSpec("labels", (batch, *frame_size(size, scale)), "uint8")
    if head == "logits":
        return TensorSpec("logits", (batch, classes, *frame_size(size, scale)), "float32")
    return TensorSpec("logits", (batch, classes, -(-height // stride), -(-width // stride)), "float32")


def recipe_names() -> list[str]:
    """The names of the recipes that come with the project, sorted."""
    return sorted(path.stem for path in content_dir("models").glob("*.toml"))


def variants() -> list[str]:
    """What `--variant` takes, sorted: the names that the project's recipes give to their networks."""
    return sorted({recipe.variant for recipe in map(load_recipe, recipe_names()) if recipe.variant is not None})


def recipes_of(variant: str) -> list[Recipe]:
    """The project's recipes of a variant, by name; at least one. Raises UsageError if there are none."""
    recipes = [recipe for recipe in map(load_recipe, recipe_names()) if recipe.variant == variant]
    if not recipes:
        raise UsageError(f"There is no variant {shorten(variant)!r}.", f"There are: {', '.join(variants())}.")
    return recipes


def load_recipe(name: str) -> Recipe:
    """A recipe by its name, or by the path of a TOML file. Raises RecipeError."""
    path = Path(name) if name.endswith(".toml") else content_dir("models") / f"{name if is_name(name) else ''}.toml"
    if not os.path.isfile(path):
        raise RecipeError(
            f"There is no recipe {shorten(name)!r}.", f"There are: {', '.join(recipe_names())}, or a path that ends in .toml."
        )
    return parse_recipe(read_toml(path, RecipeError, "a recipe"), path)


def parse_recipe(data: Mapping[str, Any], path: Path) -> Recipe:
    """The content of a recipe file -> a Recipe; `path` names the file in messages, and paths in it are relative to its folder.

    Raises RecipeError, also for unknown keys.
    """
    folder = path.parent
    try:
        file = convert_strict({key: value for key, value in data.items() if key != _IMPORT}, _File)
        file.check()
        imports = _imports(data.get(_IMPORT, {}))
        return Recipe(
            name=file.name,
            arch=file.architecture,
            dataset=str(folder / file.dataset) if file.dataset.endswith(".toml") else file.dataset,
            labels=load_labels(file.dataset, folder),
            size=file.input.size,
            mean=file.input.mean,
            std=file.input.std,
            resize=file.input.resize,
            resize_corners=file.input.resize_corners,
            scale=file.input.scale,
            weights=None if file.weights.file is None else folder / file.weights.file,
            weights_sha256=file.weights.sha256,
            build=build_of(file.build, folder),
            variant=file.variant,
            inplace_norms=imports.inplace_norms,
            published=file.published,
        )
    except DocumentError as error:
        raise RecipeError(f"{path}: {error}.") from error


def _imports(table: object) -> _Import:
    """The table [import], converted apart: its name is a word of Python's, so no field can have it. Raises DocumentError."""
    if not isinstance(table, Mapping):
        raise DocumentError(f"{_IMPORT} {shown(table)}; expected a table")
    try:
        return convert_known(table, _Import)
    except DocumentError as error:
        raise DocumentError(f"[{_IMPORT}] {error}") from error


def check_model(recipe: Recipe, spec: ModelSpec, weights_sha256: str) -> None:
    """Raises RecipeError if the recipe belongs to another model than that of `spec`.

    Compares the weights' hash and the preprocessing if there is a hash, else the name.
    """
    name, wanted = spec.name, recipe.build.weights_sha256
    if wanted not in (None, weights_sha256):
        raise RecipeError(
            f"The mix was tuned for other weights or another configuration ({str(wanted)[:12]}); the model is {name},"
            f" {weights_sha256[:12]}.",
            _TUNE_IT,
        )
    if wanted is not None and prepared(recipe) != prepared(spec):
        tuned, takes = preprocessing(recipe), preprocessing(spec)
        raise RecipeError(f"The mix was tuned with {tuned}; the model {name} takes {takes}.", _TUNE_IT)
    if wanted is None and recipe.name != name:
        raise RecipeError(f"The recipe is {recipe.name}'s; the model is {name}.")
