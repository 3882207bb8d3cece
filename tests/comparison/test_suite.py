"""Who takes part: the shipped suites, weights for their networks, and the user's own models under names that differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtformer_deploy.comparison.suite import Entrant, entrants_of
from rtformer_deploy.errors import RecipeError, UsageError
from rtformer_deploy.formats.suite_file import load_suite, suite_names

TEXT = """
title = "Two"
labels = "Cityscapes"
size = [64, 128]
reference = "Slim"
[[network]]
name = "Slim"
recipe = "rtformer-slim-cityscapes"
[[network]]
name = "other"
recipe = "rtformer-slim-cityscapes"
architecture = { attention = "ea" }
"""


def test_the_shipped_suites_are_those_of_the_article() -> None:
    assert suite_names() == ["attention", "paper"]
    paper = load_suite("paper")
    assert [network.name for network in paper.networks] == [
        "RTFormer-Slim", "RTFormer-Base", "DDRNet-23-slim", "DDRNet-23", "STDC1-50", "STDC2-50", "STDC1-75", "STDC2-75", "SegFormer-B0",
    ]  # fmt: skip
    assert paper.size == (1024, 2048)
    assert all(network.recipe.published for network in paper.networks)
    attention = load_suite("attention")
    assert [network.recipe.arch["attention"] for network in attention.networks] == ["gfa", "ea", "mhea"]
    assert [bool(network.recipe.published) for network in attention.networks] == [True, False, False]


def test_published_figures_keep_their_sources_and_devices() -> None:
    slim = load_suite("paper").networks[0].recipe.published
    assert (slim["article"].fps, slim["article"].device) == (110.0, "NVIDIA RTX 2080 Ti")
    assert (slim["copies"].fps, slim["copies"].device) == (89.6, None)


def written(folder: Path, text: str) -> str:
    (folder / "two.toml").write_text(text)
    return str(folder / "two.toml")


def test_an_unknown_suite_is_told_with_those_that_there_are() -> None:
    with pytest.raises(UsageError, match="There is no suite 'papers'") as caught:
        load_suite("papers")
    assert caught.value.hint == "There are: attention, paper, or a path that ends in .toml."
    with pytest.raises(UsageError, match="There is no suite"):
        load_suite("../suites/paper")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"other"', '"slim"', "two networks are called Slim"),
        ('reference = "Slim"', 'reference = "none"', "reference is 'none', which is none of the networks"),
        ('reference = "Slim"', 'referenz = "Slim"', "keys that mean nothing: referenz"),
        ("[64, 128]", "[0, 128]", r"size\[0\] is 0"),
        ('"other"', '"a/b"', r"network\[1\]\.name"),
        ('{ attention = "ea" }', '{ name = "stdc" }', "changes options, not the name"),
        ('"rtformer-slim-cityscapes"\narch', '"rtformer-tiny"\narch', "There is no recipe 'rtformer-tiny'"),
    ],
)
def test_a_suite_with_a_fault_names_it(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_suite(written(tmp_path, TEXT.replace(old, new)))


def test_weights_find_their_network_whatever_their_case(tmp_path: Path) -> None:
    suite = load_suite(written(tmp_path, TEXT))
    slim, other = entrants_of(suite, ["slim=a=b.pth"], [])
    assert (slim.file, other.file) == (Path("a=b.pth"), None)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (["w.pth"], "a suite has several networks"),
        (["Slim="], "a suite has several networks"),
        (["Fast=w.pth"], "has no network of that name"),
        (["other=w.pth"], "other is not as its recipe says"),
        (["Slim=a", "SLIM=b"], "Slim= is there twice"),
    ],
)
def test_weights_of_nobody_are_refused(tmp_path: Path, weights: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        entrants_of(load_suite(written(tmp_path, TEXT)), weights, [])


def test_own_models_get_names_that_no_disk_confuses(tmp_path: Path) -> None:
    suite = load_suite(written(tmp_path, TEXT))
    added = entrants_of(suite, [], [Path("a/SLIM.onnx"), Path("b/model.onnx"), Path("c/model.onnx")])[2:]
    assert [entrant.name for entrant in added] == ["SLIM_2", "model", "model_2"]
    assert added[0] == Entrant("SLIM_2", None, Path("a/SLIM.onnx"))
    assert added[0].is_own
