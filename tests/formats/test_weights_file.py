"""What weights say about themselves: written by training and by importing, read back alike, and refused if damaged or newer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_training import small_recipe, write_dataset

from rtformer_deploy.errors import WeightsError
from rtformer_deploy.formats.conversion import convert
from rtformer_deploy.formats.model_file import SPEC_KEY
from rtformer_deploy.formats.recipe import Recipe, load_recipe
from rtformer_deploy.formats.weights_file import recipe_in, weights_metadata
from rtformer_deploy.types import ModelSpec


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return replace(small_recipe(write_dataset(tmp_path / "data", frames=1)), mean=(0.1, 0.2, 0.3), resize="letterbox")


def test_what_is_written_comes_back(recipe: Recipe) -> None:
    found = recipe_in(weights_metadata(recipe), "w.safetensors")
    assert found == replace(recipe, dataset="small")  # a name: the path means nothing on another machine
    assert recipe_in(weights_metadata(load_recipe("rtformer-base-ade20k")), "w").labels.names[149] == "flag"  # type: ignore[union-attr]


def test_the_document_is_a_model_spec(recipe: Recipe) -> None:
    data = json.loads(weights_metadata(recipe)[SPEC_KEY])
    assert convert(data, ModelSpec) == recipe.spec()
    assert (data["version"], data["dataset"], data["ignore_index"]) == (1, "small", 9)


def test_a_file_without_it_says_nothing() -> None:
    assert recipe_in({}, "w") is None
    assert recipe_in({"recipe": "rtformer-slim-camvid"}, "w") is None


def changed(recipe: Recipe, **values: Any) -> dict[str, str]:
    return {SPEC_KEY: json.dumps(json.loads(weights_metadata(recipe)[SPEC_KEY]) | values)}


def test_a_newer_version_is_refused_by_name(recipe: Recipe) -> None:
    with pytest.raises(WeightsError, match=r"w\.safetensors describes its weights in version 3 .*reads up to 2") as error:
        recipe_in(changed(recipe, version=3), "w.safetensors")
    assert "--upgrade" in str(error.value)


@pytest.mark.parametrize(
    "values",
    [
        {"version": None}, {"version": 0}, {"version": True}, {"version": "1"}, {"classes": []}, {"classes": ["a"]}, {"classes": "sky"},
        {"palette": [[1, 2]]}, {"palette": 3}, {"ignore_index": 300}, {"ignore_index": "x"}, {"arch": {}}, {"arch": 3}, {"input": {}},
        {"input": {"shape": 3}}, {"input": {"shape": [1, 3, "h", 64]}}, {"mean": [0, 0]}, {"resize": "crop"},
        {"name": "../x"}, {"name": "a\\b"}, {"name": ""}, {"name": 3},
    ],
)  # fmt: skip
def test_a_damaged_document_is_one_message(recipe: Recipe, values: dict[str, Any]) -> None:
    with pytest.raises(WeightsError, match=r"^w does not say what its weights are"):
        recipe_in(changed(recipe, **values), "w")


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, "{}"])
def test_text_that_is_no_document_is_one_message(text: str) -> None:
    with pytest.raises(WeightsError, match=r"^w does not say what its weights are"):
        recipe_in({SPEC_KEY: text}, "w")
