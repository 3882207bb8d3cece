"""Recipes, parsed once: types come out, wrong keys and values are refused at the load, and paths are relative to the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import tiny_spec

from rtformer_deploy.errors import CalibrationError, RecipeError, UsageError
from rtformer_deploy.formats.build_table import BuildTable, PrecisionMix, ranges_of_build
from rtformer_deploy.formats.preprocessing import preprocessing
from rtformer_deploy.formats.ranges import save_ranges
from rtformer_deploy.formats.recipe import check_model, load_recipe, recipe_names, recipes_of, variants
from rtformer_deploy.types import ModelSpec, Ranges

HEAD = 'name = "mine"\ndataset = "camvid"\n[architecture]\nname = "rtformer"\n[input]\nsize = [48, 64]\n'
BUILD = """[build]
precision = "int8"
keep = ["layer1.*", "b"]
fp32 = ["c"]
ranges = "deep/ranges.json"
backend = "tensorrt"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for recipes, which is not the working folder."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "recipes").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "recipes"


def write(folder: Path, text: str) -> str:
    (folder / "r.toml").write_text(text)
    return str(folder / "r.toml")


def spec(name: str) -> ModelSpec:
    return replace(tiny_spec(), name=name)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_of_the_project_loads(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.build == BuildTable()
    assert recipe.weights is None or recipe.weights.is_file()


def test_the_build_table_is_typed(folder: Path) -> None:
    build = load_recipe(write(folder, HEAD + BUILD)).build
    assert build.mix == PrecisionMix("int8", ("layer1.*", "b"), ("c",))
    assert build.mix.mixed
    assert not PrecisionMix("int8").mixed
    assert (build.backend, build.ranges_sha256, build.weights_sha256) == ("tensorrt", None, None)


@pytest.mark.parametrize("key", ["weights_sha256", "model_sha256"])
def test_the_weights_hash_is_read_under_both_its_names(folder: Path, key: str) -> None:
    recipe = load_recipe(write(folder, HEAD + BUILD + f'{key} = "{"ab" * 32}"\n'))
    assert recipe.build.weights_sha256 == "ab" * 32
    check_model(recipe, spec("another name"), "ab" * 32)
    with pytest.raises(RecipeError, match="tuned for other weights"):
        check_model(recipe, spec("mine"), "cd" * 32)


@pytest.mark.parametrize("values", [{"mean": (0.0, 0.0, 0.0)}, {"std": (1.0, 1.0, 1.0)}, {"resize": "letterbox"}])
def test_a_mix_belongs_to_the_preprocessing_that_it_was_tuned_with(folder: Path, values: dict[str, Any]) -> None:
    tuned = '[build]\nprecision = "fp16"\nfp32 = ["c"]\nweights_sha256 = "' + "ab" * 32 + '"\n'
    recipe = load_recipe(write(folder, HEAD + tuned))
    check_model(recipe, spec("mine"), "ab" * 32)
    other = replace(spec("mine"), **values)
    with pytest.raises(RecipeError) as caught:
        check_model(recipe, other, "ab" * 32)
    assert caught.value.what == f"The mix was tuned with {preprocessing(spec('mine'))}; the model mine takes {preprocessing(other)}."
    check_model(replace(recipe, **values), other, "ab" * 32)


def test_without_a_hash_the_name_counts(folder: Path) -> None:
    recipe = load_recipe(write(folder, HEAD))
    check_model(recipe, spec("mine"), "cd" * 32)
    with pytest.raises(RecipeError, match="The recipe is mine's; the model is yours"):
        check_model(recipe, spec("yours"), "cd" * 32)


def test_paths_are_relative_to_the_recipe_not_to_the_working_folder(folder: Path, root: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "data.toml").write_text((root / "models" / "datasets" / "camvid.toml").read_text())
    ranges = Ranges({"input": 1.0}, "minmax", 1, "ab" * 32, "mine")
    save_ranges(ranges, folder / "deep" / "ranges.json")
    text = HEAD.replace('"camvid"', '"data.toml"') + '[weights]\nfile = "w.safetensors"\n' + BUILD
    recipe = load_recipe(write(folder, text))
    assert recipe.build.ranges == folder / "deep" / "ranges.json"
    assert ranges_of_build(recipe.build) == ranges
    assert recipe.dataset == str(folder / "data.toml")
    assert recipe.weights == folder / "w.safetensors"
    changed = load_recipe(write(folder, text + 'ranges_sha256 = "' + "00" * 32 + '"\n'))
    with pytest.raises(CalibrationError, match="not the ranges file that the mix was tuned with"):
        ranges_of_build(changed.build)
    assert ranges_of_build(load_recipe("rtformer-slim-camvid").build) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "[build]\nheat = 3\n", "it has keys that mean nothing: build.heat"),
        (HEAD + '[build]\nkeep = "body"\n', "build.keep is 'body'; expected a list"),
        (HEAD + "[build]\nfp32 = [1]\n", "build.fp32[0] is 1; expected a text"),
        (HEAD + "[build]\nranges = 3\n", "build.ranges is 3; expected a text or nothing"),
        (HEAD + '[build]\nranges_sha256 = "ab"\n', "build.ranges_sha256 is 'ab'; expected 64 hexadecimal digits"),
        (HEAD + '[build]\nprecision = "int4"\n', "build.precision is 'int4'; expected one of fp16, fp32, fp8, int8"),
        (HEAD + 'meen = [0, 0, 0]\n', "it has keys that mean nothing: input.meen"),
        (HEAD + 'mean = [0, 0]\n', "input.mean is a list of 2 values; expected 3 values"),
        (HEAD + 'mean = [0, 0, nan]\n', "input.mean[2] is nan; expected a number"),
        (HEAD + 'std = [1, inf, 1]\n', "input.std[1] is inf; expected a number"),
        (HEAD + 'std = [1, 0, 1]\n', "input.std[1] is 0; expected a number, at least 1e-06"),
        (HEAD + 'resize = "crop"\n', "input.resize is 'crop'; expected one of letterbox, stretch"),
        (HEAD + '[weights]\npath = "w"\n', "it has keys that mean nothing: weights.path"),
        (HEAD + '[weights]\nfile = "a\\u0000b"\n', "weights.file is 'a\\x00b'; expected a text without control characters"),
        (HEAD + "[other]\n", "it has keys that mean nothing: other"),
        ("version = 2\n" + HEAD, "it is of version 2, and this version of rtformer-deploy reads up to 1"),
        ("version = true\n" + HEAD, "version is true; expected a whole number, at least 1"),
        ("build = 3\n" + HEAD, "build is 3; expected a table"),
        (HEAD.replace("[48, 64]", "[48]"), "input.size is a list of 1 value; expected 2 values"),
        (HEAD.replace("[48, 64]", "[48.5, 64]"), "input.size[0] is 48.5; expected a whole number"),
        (HEAD.replace("[48, 64]", "[0, 64]"), "input.size[0] is 0; expected a whole number, at least 1"),
        (HEAD.replace("[48, 64]", "[20000, 20000]"), "input.size[0] is 20000; expected a whole number, at most 16384"),
        (HEAD.replace("[48, 64]", "[16384, 16384]"), "input.size is 16384x16384: 268,435,456 pixels, more than 67,108,864"),
        (HEAD.replace("size = [48, 64]", ""), "input has no size"),
        (HEAD.replace('name = "mine"\n', ""), "it has no name"),
        (HEAD.replace('"mine"', '"../victim/x"'), "name is '../victim/x'; expected a plain file name"),
        (HEAD.replace('"mine"', '".."'), "name is '..'; expected a plain file name"),
        (HEAD.replace('"mine"', '"a\\\\b"'), "expected a plain file name"),
        (HEAD.replace('"mine"', '"\\u202egnp.exe"'), "expected a plain file name"),
        (HEAD.replace('"mine"', f'"{"名" * 100}"'), "expected a plain file name"),
        (HEAD.replace('dataset = "camvid"', "dataset = 3"), "dataset is 3; expected a text"),
        (HEAD.replace('"camvid"', '"../datasets/camvid"'), "There is no dataset '../datasets/camvid'"),
        (HEAD.replace('name = "rtformer"', "name = 3"), "architecture has no name"),
        (HEAD.replace('name = "rtformer"', 'name = "rtformer"\na = { b = 1 }'), "architecture.a is a table of 1 key; expected"),
        (HEAD.replace('name = "rtformer"', 'name = "rtformer"\na = 0x' + "f" * 150), "architecture.a is"),
        ("architecture = 3\n" + HEAD.replace('[architecture]\nname = "rtformer"\n', ""), "architecture is 3; expected a table"),
        ("a." * 20_000 + "a = 1\n" + HEAD, "a key of 20,001 parts"),
        (HEAD + "[published]\nx = " + "[" * 100_000, "r.toml: it has a line of 100,004 characters"),
        (HEAD.replace('"camvid"', '"nowhere"'), "There is no dataset 'nowhere'"),
        ("name = ", "Cannot read"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_at_the_load(folder: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        load_recipe(write(folder, text))
    assert message in str(error.value)


def test_a_variant_is_what_recipes_call_their_network() -> None:
    names = {name: load_recipe(name).variant for name in recipe_names()}
    assert set(names.values()) == set(variants())
    assert {recipe.name for recipe in recipes_of("slim")} == {name for name in names if name.startswith("rtformer-slim-")}
    assert [recipe.name for recipe in recipes_of("ddrnet23")] == ["ddrnet23-cityscapes"]
    with pytest.raises(UsageError, match=r"There is no variant 'tiny'\.\nThere are: base, ddrnet23, ddrnet23-slim, .*stdc2-75"):
        recipes_of("tiny")
