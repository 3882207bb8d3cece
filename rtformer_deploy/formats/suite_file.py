"""Reads suites: which networks `compare` puts side by side, at which size. Their figures that others published are in their recipes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from ..content import content_dir
from ..errors import RecipeError, UsageError, shorten
from ..types import Arch, FileName, PathText, Side, Text
from .conversion import convert_strict
from .documents import DocumentError, read_toml
from .model_spec import check_size
from .names import check_name, is_name
from .recipe import Recipe, load_recipe


@dataclass(frozen=True, slots=True)
class SuiteNetwork:
    """A network of a suite: its recipe, and what `load_recipe` takes to give it. `is_changed`: its [architecture] is not the recipe's."""

    name: str
    recipe: Recipe
    source: str
    is_changed: bool = False


@dataclass(frozen=True, slots=True)
class Suite:
    """Networks to compare on frames of (H, W) `size`; speeds are given relative to that of the network `reference`.

    `labels` is what published mIoU of its networks was measured on, in words.
    """

    name: str
    title: str
    labels: str
    size: tuple[int, int]
    reference: str
    networks: tuple[SuiteNetwork, ...]


@dataclass(frozen=True, slots=True)
class _Network:
    """A [[network]]"""

    name: FileName
    recipe: PathText
    architecture: Arch = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _File:
    """A suite file."""

    title: Text
    labels: Text
    size: tuple[Side, Side]
    reference: FileName
    network: Annotated[tuple[_Network, ...], Meta(min_length=1, max_length=100)]

    def check(self) -> None:
        """Raises DocumentError for what the types do not say."""
        check_size(*self.size, "size")
        names = [network.name for network in self.network]
        for name in names:
            check_name(name, "network.name")
            if [other.casefold() for other in names].count(name.casefold()) > 1:
                raise DocumentError(f"two networks are called {name}")
        if self.reference not in names:
            raise DocumentError(f"reference is {self.reference!r}, which is none of the networks")
        if any("name" in network.architecture for network in self.network):
            raise DocumentError("[network.architecture] changes options, not the name")


def suite_names() -> list[str]:
    """The names of the suites that come with the project, sorted."""
    return sorted(path.stem for path in _folder().glob("*.toml"))


def load_suite(name: str) -> Suite:
    """A suite by its name, or by the path of a TOML file. Raises UsageError for an unknown name, RecipeError for a file with a fault."""
    path = Path(name) if name.endswith(".toml") else _folder() / f"{name if is_name(name) else ''}.toml"
    if not os.path.isfile(path):
        raise UsageError(f"There is no suite {shorten(name)!r}.", f"There are: {', '.join(suite_names())}, or a path that ends in .toml.")
    try:
        file = convert_strict(read_toml(path, RecipeError, "a suite"), _File)
        file.check()
    except DocumentError as error:
        raise RecipeError(f"{path}: {error}.") from error
    networks = tuple(_network(network, path.parent) for network in file.network)
    return Suite(path.stem, file.title, file.labels, file.size, file.reference, networks)


def _network(network: _Network, folder: Path) -> SuiteNetwork:
    source = str(folder / network.recipe) if network.recipe.endswith(".toml") else network.recipe
    recipe = load_recipe(source)
    if not network.architecture:
        return SuiteNetwork(network.name, recipe, source)
    arch: Mapping[str, object] = {**recipe.arch, **network.architecture}
    return SuiteNetwork(network.name, replace(recipe, arch=arch, published={}), source, is_changed=True)


def _folder() -> Path:
    return content_dir("models") / "suites"
