"""The chosen mix -> the text of a recipe that `build-engine --recipe` builds exactly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tomlkit
from tomlkit.items import Array, Table

from ..formats.build_table import PrecisionMix
from ..formats.preprocessing import prepared, written
from ..types import ModelSpec
from .blocks import Block, globs
from .search import Mix

_WIDTH = 120
_INDENT = "    "

#: A block as a recipe shows it: its name and level as a comment, and the names it may list.
_Group = tuple[str, Sequence[str]]


def recipe_text(
    spec: ModelSpec, dataset: str, named: PrecisionMix, build: Mapping[str, str], blocks: Sequence[Block], mix: Mix, comment: Sequence[str]
) -> str:
    """A spec, its dataset (a name, or a file's path as written in the recipe) and a mix, by operators and by blocks -> TOML.

    `build` holds the other keys of [build]. Operators are listed block by block.
    """
    document = tomlkit.document()
    for line in comment:
        document.add(tomlkit.comment(_one_line(line)))
    document.add("name", tomlkit.item(spec.name))
    document.add("dataset", tomlkit.item(dataset))
    document.add("architecture", _table(spec.arch))
    document.add("input", _table({"size": spec.size, **written(spec, prepared(spec))}))
    table = _table({"precision": named.precision, **build})
    if named.exclude:
        table.add("keep", _names(named.exclude, [(f"{block.name}: {mix[block.name]}", globs(block.convolutions)) for block in blocks]))
    if named.fp32:
        table.add("fp32", _names(named.fp32, [(f"{block.name}: {mix[block.name]}", globs(block.operators)) for block in blocks]))
    document.add("build", table)
    return tomlkit.dumps(document).rstrip("\n") + "\n"


def _table(values: Mapping[str, Any]) -> Table:
    """A table of values; TOML has no None, and a key without a value is left out."""
    table = tomlkit.table()
    for key, value in values.items():
        if value is not None:
            table.add(key, tomlkit.item(_lists(value)))
    return table


def _lists(value: Any) -> Any:
    """A value with its tuples turned into lists, because tomlkit does not accept tuples."""
    return [_lists(item) for item in value] if isinstance(value, (list, tuple)) else value


def _names(names: Iterable[str], groups: Iterable[_Group]) -> Array:
    """A list over several lines, each block's names under its own comment."""
    name_set = set(names)
    array = tomlkit.array()
    for title, members in groups:
        present = [name for name in members if name in name_set]
        if present:
            array.add_line(indent=_INDENT, comment=_one_line(title))
            for line in _folded(present):
                array.add_line(*line, indent=_INDENT)
    array.add_line(indent="")
    return array


def _folded(names: Iterable[str]) -> list[list[str]]:
    """Names -> lines of them that are no wider than a recipe's lines."""
    lines: list[list[str]] = []
    room = 0
    for name in names:
        width = len(tomlkit.item(name).as_string()) + 2
        if not lines or width > room:
            lines.append([])
            room = _WIDTH - len(_INDENT)
        lines[-1].append(name)
        room -= width
    return lines


def _one_line(text: str) -> str:
    """A text for a comment: line ends and characters that TOML forbids become spaces."""
    return "".join(character if character.isprintable() else " " for character in text)
