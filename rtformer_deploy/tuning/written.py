"""The chosen mix -> the text of a recipe that `build-engine --recipe` builds exactly."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..formats.build_table import Mix
from ..types import ModelSpec
from .blocks import Block, globs
from .search import Levels

_WIDTH = 120


def recipe_text(
    spec: ModelSpec, dataset: str, mix: Mix, build: Mapping[str, str], blocks: Sequence[Block], levels: Levels, comment: Sequence[str]
) -> str:
    """A spec, its dataset (a name, or a file's path as the recipe is to say it) and a mix -> TOML; `build` holds what else [build] says.

    Operators stand block by block.
    """
    lines = [f"# {line}" for line in comment]
    lines += [f"name = {_value(spec.name)}", f"dataset = {_value(dataset)}", "", "[architecture]"]
    lines += [f"{key} = {_value(value)}" for key, value in spec.arch.items() if value is not None]
    lines += ["", "[input]", f"size = {_value(spec.size)}", f"mean = {_value(spec.mean)}", f"std = {_value(spec.std)}"]
    lines += [f"resize = {_value(spec.resize)}", "", "[build]", f"precision = {_value(mix.precision)}"]
    lines += [f"{key} = {_value(value)}" for key, value in build.items()]
    if mix.keep:
        lines += _names("keep", mix.keep, [(block, levels[block.name], globs(block.convolutions)) for block in blocks])
    if mix.fp32:
        lines += _names("fp32", mix.fp32, [(block, levels[block.name], globs(block.operators)) for block in blocks])
    return "\n".join(lines) + "\n"


def _names(key: str, named: Iterable[str], blocks: Iterable[tuple[Block, str, Sequence[str]]]) -> list[str]:
    """A list over several lines, each block's names under its own."""
    wanted = set(named)
    lines = [f"{key} = ["]
    for block, level, names in blocks:
        present = [_value(name) for name in names if name in wanted]
        if present:
            lines.append(f"    # {block.name}: {level}")
            lines += _folded(present)
    return [*lines, "]"]


def _folded(items: Iterable[str]) -> list[str]:
    lines: list[str] = []
    for item in items:
        if lines and len(lines[-1]) + len(item) + 2 <= _WIDTH:
            lines[-1] += f" {item},"
        else:
            lines.append(f"    {item},")
    return lines


def _value(value: Any) -> str:
    """A value as TOML; a JSON text of one is TOML too, once nothing but quotes and controls is escaped."""
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_value(item)}" for key, item in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
