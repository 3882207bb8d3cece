"""Reads recipes and dataset files, the only configuration. A recipe describes one deployable; a dataset file names its classes."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..content import content_dir
from ..errors import RecipeError
from ..files import read_text
from ..types import IMAGENET_MEAN, IMAGENET_STD, Head, ModelSpec, Resize, TensorSpec
from . import values
from .build_table import BuildTable, parse_build
from .ranges import preprocessing

#: What a recipe file may hold. [published] is for people: figures of the article, which the code does not read.
_KEYS = frozenset({"name", "dataset", "architecture", "input", "weights", "build", "published"})
_TUNE_IT = "Tune this model: rtformer-deploy tune."


@dataclass(frozen=True, slots=True)
class Labels:
    """Class names, one RGB triple for each class, and the id that is not scored."""

    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    ignore_index: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """One deployable: architecture, labels, input, weights, and how its engine is built.

    `dataset` is a dataset's name, or the path of its TOML file; `size` is (H, W); `weights` the path of the weights that come with it.
    """

    name: str
    arch: Mapping[str, Any]
    dataset: str
    labels: Labels
    size: tuple[int, int]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    resize: Resize = "stretch"
    weights: Path | None = None
    weights_sha256: str | None = None
    build: BuildTable = field(default_factory=BuildTable)

    def spec(
        self,
        *,
        size: tuple[int, int] | None = None,
        batch: int | str = 1,
        head: Head = "lowres",
        labels: Labels | None = None,
        weights: str | None = None,
        sha256: str | None = None,
    ) -> ModelSpec:
        """The ModelSpec of an export of this recipe; `labels` replaces the recipe's own if the class count differs."""
        height, width = size or self.size
        labels = labels or self.labels
        return ModelSpec(
            name=self.name,
            arch=self.arch,
            classes=labels.names,
            palette=labels.palette,
            input=TensorSpec("input", (batch, 3, height, width), "float32"),
            output=output_spec(head, len(labels.names), batch, (height, width)),
            head=head,
            mean=self.mean,
            std=self.std,
            resize=self.resize,
            weights=weights,
            sha256=sha256,
        )


def output_spec(head: Head, classes: int, batch: int | str, size: tuple[int, int], stride: int = 8) -> TensorSpec:
    """Name, shape and type of the output that a head gives: stride-8 logits, full-size logits or uint8 labels."""
    height, width = size
    if head == "labels":
        return TensorSpec("labels", (batch, height, width), "uint8")
    if head == "logits":
        return TensorSpec("logits", (batch, classes, height, width), "float32")
    return TensorSpec("logits", (batch, classes, -(-height // stride), -(-width // stride)), "float32")


def recipe_names() -> list[str]:
    """The names of the recipes that come with the project, sorted."""
    return sorted(path.stem for path in content_dir("models").glob("*.toml"))


def load_recipe(name: str) -> Recipe:
    """A recipe by its name, or by the path of a TOML file. Raises RecipeError."""
    path = Path(name) if name.endswith(".toml") else content_dir("models") / f"{name}.toml"
    if not path.is_file():
        raise RecipeError(f"There is no recipe {name!r}.", f"There are: {', '.join(recipe_names())}, or a path that ends in .toml.")
    return parse_recipe(_read_toml(path), path)


def parse_recipe(data: Mapping[str, Any], path: Path) -> Recipe:
    """The content of a recipe file -> a Recipe; `path` names the file in messages, and paths in it are relative to its folder.

    Raises RecipeError, also for unknown keys.
    """
    folder = path.parent
    try:
        values.only(data, _KEYS, "the recipe")
        shape, weights, arch = (values.table(data, key) for key in ("input", "weights", "architecture"))
        values.only(shape, {"size", "mean", "std", "resize"}, "[input]")
        values.only(weights, {"file", "sha256"}, "[weights]")
        values.needed(arch, "name", "[architecture]")
        file, dataset = values.text(weights, "file", "[weights]"), values.needed(data, "dataset", "the recipe")
        return Recipe(
            name=values.needed(data, "name", "the recipe"),
            arch=dict(arch),
            dataset=str(folder / dataset) if dataset.endswith(".toml") else dataset,
            labels=load_labels(dataset, folder),
            size=values.size(shape.get("size")),
            mean=values.triple(shape.get("mean", IMAGENET_MEAN)),
            std=values.triple(shape.get("std", IMAGENET_STD)),
            resize=values.choice(shape.get("resize", "stretch"), ("stretch", "letterbox")),
            weights=None if file is None else folder / file,
            weights_sha256=values.text(weights, "sha256", "[weights]"),
            build=parse_build(values.table(data, "build"), folder),
        )
    except ValueError as error:
        raise RecipeError(f"{path}: {error}.") from error


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
    if wanted is not None and (recipe.mean, recipe.std, recipe.resize) != (spec.mean, spec.std, spec.resize):
        raise RecipeError(f"The mix was tuned with {preprocessing(recipe)}; the model {name} takes {preprocessing(spec)}.", _TUNE_IT)
    if wanted is None and recipe.name != name:
        raise RecipeError(f"The recipe is {recipe.name}'s; the model is {name}.")


def load_labels(dataset: str, beside: Path | None = None) -> Labels:
    """Class names, palette and ignore index of a dataset that comes with the project, or of a dataset TOML file.

    A relative path starts at the folder `beside`.
    """
    if dataset.endswith(".toml"):
        path = (beside or Path()) / dataset
    else:
        path = content_dir("models") / "datasets" / f"{dataset}.toml"
    if not path.is_file():
        known = sorted(entry.stem for entry in (content_dir("models") / "datasets").glob("*.toml"))
        raise RecipeError(f"There is no dataset {dataset!r}.", f"There are: {', '.join(known)}, or a path that ends in .toml.")
    data = _read_toml(path)
    try:
        labels = Labels(
            names=tuple(str(name) for name in data["classes"]),
            palette=tuple(values.colour(value) for value in data["palette"]),
            ignore_index=int(data["ignore_index"]),
        )
    except KeyError as error:
        raise RecipeError(f"{path} lacks {error}.") from error
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{path}: {error}.") from error
    if len(labels.names) != len(labels.palette):
        raise RecipeError(f"{path} names {len(labels.names)} classes and {len(labels.palette)} colours.")
    return labels


def numbered_labels(count: int) -> Labels:
    """Labels for classes without names: class0, class1, ..., in evenly spread colours."""
    if not 1 <= count <= 255:
        raise RecipeError(f"{count} classes do not fit: a label map is uint8, 1 to 255 classes.")
    return Labels(tuple(f"class{index}" for index in range(count)), tuple(_spread(index) for index in range(count)), 255)


def _spread(index: int) -> tuple[int, int, int]:
    """The VOC colour map: the bits of the id go to red, green and blue in turn, highest first."""
    red = green = blue = 0
    value = index + 1
    for bit in range(7, -1, -1):
        red |= (value & 1) << bit
        green |= (value >> 1 & 1) << bit
        blue |= (value >> 2 & 1) << bit
        value >>= 3
    return red, green, blue


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_text(path, RecipeError, "a recipe or a dataset file"))
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"Cannot read {path}: {error}.") from error
