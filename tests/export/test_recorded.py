"""Weights that say what they are need no recipe, and no recipe gives them other classes; older files work as they did."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_training import small_recipe, write_dataset

from rtformer_deploy.commands.import_weights import import_weights
from rtformer_deploy.commands.inspect import describe
from rtformer_deploy.errors import WeightsError
from rtformer_deploy.export.weights_choice import choose_network, network_in
from rtformer_deploy.formats.recipe import Labels, Recipe, load_recipe, numbered_labels
from rtformer_deploy.formats.weights_file import weights_metadata
from rtformer_deploy.nn import build_network
from rtformer_deploy.nn.weights import save_weights
from rtformer_deploy.opening import open_any

MINE = Labels(tuple(f"mine{index}" for index in range(11)), numbered_labels(11).palette, 255)


def write(path: Path, recipe: Recipe, metadata: dict[str, str]) -> Path:
    torch.manual_seed(0)
    save_weights(build_network(recipe.arch, len(recipe.labels.names), aux=False).state_dict(), path, metadata)
    return path


@pytest.fixture
def small(tmp_path: Path) -> Recipe:
    recipe = small_recipe(write_dataset(tmp_path / "data", frames=1))
    return replace(recipe, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), resize="letterbox")


@pytest.fixture
def eleven(tmp_path: Path) -> Path:
    """Weights of Slim for 11 classes that are not CamVid's."""
    recipe = replace(load_recipe("rtformer-slim-camvid"), labels=MINE)
    return write(tmp_path / "eleven.safetensors", recipe, weights_metadata(recipe))


def test_every_command_reads_what_the_weights_are(small: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "w.safetensors", small, weights_metadata(small))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    said: list[str] = []
    choice = choose_network(weights=path, say=said.append)
    assert said == ["The weights say what they are: small, 3 classes."]
    with open_any(path) as runner:
        assert runner.spec == choice.spec() == network_in(path).spec()
    spec = choice.spec()
    assert (spec.classes, spec.palette) == (small.labels.names, small.labels.palette)
    assert (spec.mean, spec.std, spec.resize, spec.size) == (small.mean, small.std, "letterbox", (48, 64))
    assert spec.arch == small.arch
    assert (spec.weights, spec.sha256) == ("w.safetensors", choice.sha256)
    assert describe(path).facts["model"]["classes"] == "3: sky, road, pole"


def test_other_11_classes_never_get_camvids_names(eleven: Path) -> None:
    assert choose_network(weights=eleven).labels.names == MINE.names
    assert choose_network(weights=eleven, variant="slim").labels.names == MINE.names
    with pytest.raises(WeightsError, match=r"says otherwise: classes mine0, .*, not Sky, Building.*\nLeave --recipe out"):
        choose_network(weights=eleven, recipe="rtformer-slim-camvid")
    with pytest.raises(WeightsError, match="classes mine0"):
        import_weights(eleven, "rtformer-slim-camvid")
    with pytest.raises(WeightsError, match=r"no 'base' is like that"):
        choose_network(weights=eleven, variant="base")


def test_a_recipe_that_agrees_may_be_named(tmp_path: Path) -> None:
    recipe = load_recipe("rtformer-slim-camvid")
    trained = replace(recipe, arch=dict(recipe.arch) | {"drop_path": 0.0})  # as --drop-path sets it: the same network
    path = write(tmp_path / "w.safetensors", trained, weights_metadata(trained))
    named = choose_network(weights=path, recipe="rtformer-slim-camvid")
    assert named.spec() == choose_network(weights=path).spec()
    other = replace(recipe, arch=dict(recipe.arch) | {"cross_size": 8}, std=(0.2, 0.2, 0.2))
    path = write(tmp_path / "w.safetensors", other, weights_metadata(other))
    with pytest.raises(WeightsError, match=r"std 0\.2, 0\.2, 0\.2, not 0\.229, .*; cross_size 8, not 12"):
        choose_network(weights=path, recipe="rtformer-slim-camvid")


def test_imported_weights_say_what_they_are(tmp_path: Path, eleven: Path) -> None:
    bare = write(tmp_path / "bare.safetensors", load_recipe("rtformer-slim-camvid"), {})
    import_weights(bare, "rtformer-slim-camvid").save(tmp_path / "camvid.safetensors")
    assert network_in(tmp_path / "camvid.safetensors").labels.names[0] == "Sky"
    import_weights(bare, "rtformer-slim-cityscapes", 11).save(tmp_path / "numbers.safetensors")
    assert network_in(tmp_path / "numbers.safetensors").labels.names[0] == "class0"
    named = choose_network(weights=tmp_path / "numbers.safetensors", recipe="rtformer-slim-camvid")
    assert named.labels.names[0] == "Sky"  # numbers may get names


def test_the_shipped_weights_say_what_they_are(root: Path) -> None:
    said: list[str] = []
    choice = choose_network(weights=root / "models" / "rtformer-slim-camvid.safetensors.xz", say=said.append)
    assert choice.labels.names[0] == "Sky"
    assert said == ["The weights say what they are: rtformer-slim-camvid, 11 classes."]


def test_older_files_work_as_they_did(tmp_path: Path) -> None:
    bare = write(tmp_path / "eleven.safetensors", load_recipe("rtformer-slim-camvid"), {"recipe": "rtformer-slim-camvid"})
    said: list[str] = []
    choose_network(weights=bare, say=said.append)
    assert network_in(bare).labels.names[0] == "Sky"
    assert said == ["The weights name their recipe: rtformer-slim-camvid."]
    older = replace(load_recipe("rtformer-slim-camvid"), labels=numbered_labels(2))
    path = write(tmp_path / "two.safetensors", older, {"recipe": "rtformer-slim-camvid"})
    assert network_in(path).labels.names == ("class0", "class1")
    with pytest.raises(WeightsError, match="Add --num-classes 2"):  # as export says, which has this option
        choose_network(weights=path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, r"bare\.safetensors does not say which network .*\n.*import-weights .*bare\.safetensors --recipe NAME"),
        ({"recipe": "../mine.toml"}, r"names the recipe '\.\./mine\.toml', which does not come with the project"),
    ],
)
def test_a_file_that_says_too_little_names_the_way_out(tmp_path: Path, small: Recipe, metadata: dict[str, str], message: str) -> None:
    path = write(tmp_path / "bare.safetensors", small, metadata)
    with pytest.raises(WeightsError, match=message):
        open_any(path)


def test_weights_that_are_not_what_they_say(tmp_path: Path, small: Recipe) -> None:
    path = write(tmp_path / "w.safetensors", small, weights_metadata(replace(small, labels=MINE)))
    with pytest.raises(WeightsError, match="gives 3 classes; 11 were asked for"):
        open_any(path)
