"""The recipe that tune writes: whatever names hold, it is TOML that says the same, with its comments where they belong."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import pytest
from helpers import tiny_spec
from hypothesis import given
from hypothesis import strategies as st

from rtformer_deploy.commands.tune import dataset_from
from rtformer_deploy.formats.build_table import PrecisionMix
from rtformer_deploy.formats.recipe import load_recipe
from rtformer_deploy.tuning.blocks import Block, globs
from rtformer_deploy.tuning.recipe_file import recipe_text
from rtformer_deploy.tuning.search import Mix

#: Any text but lone surrogates, which UTF-8 does not hold.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@given(st.lists(TEXT, min_size=2, max_size=8, unique=True), TEXT, TEXT)
def test_any_names_come_back_as_they_were(names: list[str], dataset: str, comment: str) -> None:
    blocks = [Block(names[0], tuple(names[1:]), tuple(names[1:]), 0.5), Block(names[1], (), tuple(names[:1]), 0.5)]
    mix: Mix = {names[0]: "fp16", names[1]: "fp32"}
    spec = dataclasses.replace(tiny_spec(), name=names[0], arch={"name": names[1], "heads": [1, 2], "size": [3, 4], "none": None})
    named = PrecisionMix("int8", globs(names[1:]), globs(names[:1]))
    data = tomllib.loads(recipe_text(spec, dataset, named, {"backend": "tensorrt", "ranges": dataset}, blocks, mix, [comment, "second"]))
    assert data == {
        "name": names[0],
        "dataset": dataset,
        "architecture": {"name": names[1], "heads": [1, 2], "size": [3, 4]},
        "input": {"size": list(spec.size), "mean": list(spec.mean), "std": list(spec.std), "resize": "stretch"},
        "build": {"precision": "int8", "backend": "tensorrt", "ranges": dataset, "keep": list(named.exclude), "fp32": list(named.fp32)},
    }


def test_operators_stand_block_by_block_under_their_comments(tmp_path: Path) -> None:
    many = tuple(f"b.{index}" for index in range(40))
    blocks = [Block("a", ("a.0", "a.1"), ("a.0", "a.1"), 0.5), Block("b", many, many, 0.5)]
    named = PrecisionMix("int8", ("a.0", *many), ("a.1",))
    text = recipe_text(tiny_spec(), "camvid", named, {}, blocks, {"a": "fp32", "b": "fp16"}, ["Written by tune.", "Two\nlines"])
    lines = text.splitlines()
    assert lines[:2] == ["# Written by tune.", "# Two lines"]
    assert text.endswith("]\n")
    assert max(len(line) for line in lines) <= 120
    keep = lines[lines.index("keep = [") :]
    assert keep[:4] == ["keep = [", "    # a: fp32", '    "a.0",', "    # b: fp16"]
    assert keep[4].startswith('    "b.0", "b.1", ')
    assert lines[lines.index("fp32 = [") :] == ["fp32 = [", "    # a: fp32", '    "a.1",', "]"]
    (tmp_path / "r.toml").write_text(text)
    assert load_recipe(str(tmp_path / "r.toml")).build.mix == named


def test_a_recipe_finds_its_dataset_through_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep" / "real").mkdir(parents=True)
    (tmp_path / "out").symlink_to(tmp_path / "deep" / "real")
    (tmp_path / "mine.toml").write_text("found")
    monkeypatch.chdir(tmp_path)
    assert dataset_from(Path("out"), "camvid") == "camvid"
    assert (Path("out") / dataset_from(Path("out"), "mine.toml")).read_text() == "found"
