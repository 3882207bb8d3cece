"""`resize_corners` and `scale` in every document: what is written comes back, what is older gets the defaults."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from helpers import tiny_model, tiny_spec
from stdc_evaluation import corner_spec

from rtformer_deploy.backends import build
from rtformer_deploy.errors import CalibrationError, ModelError, RecipeError
from rtformer_deploy.export.recorded import _differences
from rtformer_deploy.formats.build_table import PrecisionMix
from rtformer_deploy.formats.engine_file import load_info, save_engine, sidecar
from rtformer_deploy.formats.model_file import SPEC_KEY, read_spec, stamp_notes, stamp_spec
from rtformer_deploy.formats.preprocessing import preprocessing, scale_fault
from rtformer_deploy.formats.ranges import check_ranges, load_ranges, ranges_hash, to_bytes
from rtformer_deploy.formats.recipe import Recipe, check_model, load_recipe
from rtformer_deploy.formats.weights_file import recipe_in, weights_metadata
from rtformer_deploy.tuning.recipe_file import recipe_text
from rtformer_deploy.types import BuildOptions, ModelSpec, Ranges

HEAD = 'name = "mine"\ndataset = "camvid"\narchitecture = {name = "rtformer", base_channels = 8}\n[input]\nsize = [48, 96]\n'
CORNERS = "resize_corners = true\nscale = 0.5\n"
NEW = {"resize_corners": True, "scale": 0.5}
RANGES = Ranges({"input": 2.5}, "mse", 3, "ab" * 32, "tiny")


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    (tmp_path / "mine.toml").write_text(HEAD + CORNERS)
    return load_recipe(str(tmp_path / "mine.toml"))


def test_a_recipe_says_them_and_its_spec_too(recipe: Recipe, tmp_path: Path) -> None:
    assert (recipe.size, recipe.resize_corners, recipe.scale) == ((48, 96), True, 0.5)
    for head, shape in (("lowres", (6, 12)), ("logits", (96, 192)), ("labels", (96, 192))):
        spec = recipe.spec(head=head)  # type: ignore[arg-type]
        assert (spec.resize_corners, spec.scale, spec.frame_size) == (True, 0.5, (96, 192))
        assert spec.output.shape[-2:] == shape
    (tmp_path / "plain.toml").write_text(HEAD)
    plain = load_recipe(str(tmp_path / "plain.toml"))
    assert (plain.resize_corners, plain.scale, plain.spec().frame_size) == (False, 1.0, (48, 96))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scale = 0", "input.scale is 0; expected a number, at least 0.01"),
        ("scale = 1.5", "input.scale is 1.5; expected a number, at most 1"),
        ("scale = nan", "input.scale is nan"),
        ('resize_corners = "yes"', "input.resize_corners is 'yes'; expected true or false"),
        ("scale = 0.7", "[input] size 48x96 is scale 0.7 of no frame, which would have 68.6x137.1 pixels; 49x98 is that of 70x140"),
        ("scale = 0.123457", "[input] size 48x96 is scale 0.123457 of no frame, which would have 388.8x777.6 pixels"),
        ("scale = 0.01", "input.size over input.scale is 4800x9600: 46,080,000 pixels"),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused(tmp_path: Path, text: str, message: str) -> None:
    if "over input.scale" in message:  # the frame would be larger than any
        text, message = "scale = 0.01\nmean = [0, 0, 0]", "input.size over input.scale is 20000x40000; height and width are from 1 to 16384"
        (tmp_path / "mine.toml").write_text(HEAD.replace("[48, 96]", "[200, 400]") + text)
    else:
        (tmp_path / "mine.toml").write_text(HEAD + text + "\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(tmp_path / "mine.toml"))
    assert message in caught.value.what


@pytest.mark.parametrize(("size", "scale"), [((512, 1024), 0.5), ((768, 1536), 0.75), ((341, 682), 1 / 3), ((1, 1), 1.0), ((7, 21), 0.7)])
def test_shares_of_whole_frames(size: tuple[int, int], scale: float) -> None:
    assert scale_fault(size, scale) is None


def test_stdcs_two_scales_are_of_cityscapes_frames() -> None:
    for size, scale in (((512, 1024), 0.5), ((768, 1536), 0.75)):
        assert dataclasses.replace(corner_spec(size=size), scale=scale).frame_size == (1024, 2048)


def test_the_stamp(recipe: Recipe) -> None:
    model = tiny_model()
    for spec, version in ((corner_spec(), 2), (tiny_spec(), 1)):
        stamp_spec(model, spec)
        data = json.loads(model.metadata_props[SPEC_KEY])
        assert (data["version"], read_spec(model), stamp_notes(model)) == (version, spec, ())
        assert ("scale" in data) == ("resize_corners" in data) == (version == 2)
    model.metadata_props[SPEC_KEY] = json.dumps({**corner_spec().to_json(), "scale": 0.37})
    with pytest.raises(ModelError, match=r"input: size 64x96 is scale 0.37 of no frame"):
        read_spec(model)


def test_the_sidecar(tmp_path: Path) -> None:
    engine = build(tiny_model(), corner_spec(), "onnxruntime", BuildOptions(threads=1))
    save_engine(engine, tmp_path / "e.plan")
    assert load_info(tmp_path / "e.plan").spec == corner_spec()
    data = json.loads(sidecar(tmp_path / "e.plan").read_text())
    assert (data["version"], data["spec"]["scale"]) == (2, 0.5)
    for key in NEW:
        del data["spec"][key]
    sidecar(tmp_path / "e.plan").write_text(json.dumps(data | {"version": 1}))
    older = load_info(tmp_path / "e.plan")
    assert (older.spec.resize_corners, older.spec.scale, older.notes) == (False, 1.0, ())


def test_weights(recipe: Recipe) -> None:
    metadata = weights_metadata(recipe)
    found = recipe_in(metadata, "w")
    assert found is not None
    assert (found.resize_corners, found.scale, found.size) == (True, 0.5, (48, 96))
    data = json.loads(metadata[SPEC_KEY])
    assert data["version"] == 2
    older = {key: value for key, value in data.items() if key not in (*NEW, "version")}
    found = recipe_in({SPEC_KEY: json.dumps(older)}, "w")
    assert found is not None
    assert (found.resize_corners, found.scale) == (False, 1.0)
    plain = dataclasses.replace(recipe, resize_corners=False, scale=1.0)
    assert json.loads(weights_metadata(plain)[SPEC_KEY]) == older | {"version": 1}
    assert _differences(recipe, plain) == ["resize_corners True, not False", "scale 0.5, not 1.0"]


@pytest.mark.parametrize("values", [{"resize_corners": True}, {"scale": 0.5}, NEW])
def test_ranges_and_mixes_belong_to_them(tmp_path: Path, values: dict[str, Any], recipe: Recipe) -> None:
    spec = dataclasses.replace(tiny_spec(), sha256="ab" * 32, **values)
    ranges = dataclasses.replace(RANGES, **values)
    (tmp_path / "ranges.json").write_bytes(to_bytes(ranges))
    said: list[str] = []
    again = load_ranges(tmp_path / "ranges.json", said.append)
    assert (again, said, json.loads(to_bytes(ranges))["version"]) == (ranges, [], 3)
    assert len({ranges_hash(ranges), ranges_hash(RANGES), ranges_hash(dataclasses.replace(ranges, resize="letterbox"))}) == 3
    check_ranges(ranges, spec, "ab" * 32)
    for one, other in ((RANGES, spec), (ranges, tiny_spec())):
        with pytest.raises(CalibrationError) as caught:
            check_ranges(one, other, "ab" * 32)
        assert caught.value.what == f"These ranges were measured with {preprocessing(one)}; the model tiny takes {preprocessing(other)}."
    mix = dataclasses.replace(recipe.build, weights_sha256="ab" * 32)
    tuned = dataclasses.replace(recipe, build=mix, resize_corners=spec.resize_corners, scale=spec.scale)
    check_model(tuned, spec, "ab" * 32)
    with pytest.raises(RecipeError, match=r"The mix was tuned with mean .*; the model tiny takes mean "):
        check_model(tuned, tiny_spec(), "ab" * 32)


def test_ranges_of_version_2_keep_their_hash_and_get_the_defaults(tmp_path: Path) -> None:
    data = json.loads(to_bytes(dataclasses.replace(RANGES, resize="letterbox")))
    assert (data["version"], NEW.keys() & data.keys()) == (2, set())
    (tmp_path / "ranges.json").write_text(json.dumps(data))
    ranges = load_ranges(tmp_path / "ranges.json")
    assert (ranges.resize_corners, ranges.scale) == (False, 1.0)
    (tmp_path / "ranges.json").write_text(json.dumps(data | {"version": 3}))
    with pytest.raises(CalibrationError, match="it has no resize_corners"):
        load_ranges(tmp_path / "ranges.json")


def test_how_images_are_prepared_in_words() -> None:
    assert preprocessing(tiny_spec()) == "mean 0.485,0.456,0.406, std 0.229,0.224,0.225 and resize stretch"
    assert preprocessing(corner_spec()) == (
        "mean 0.485,0.456,0.406, std 0.229,0.224,0.225, resize stretch, resize_corners true and scale 0.5"
    )


@pytest.mark.parametrize("spec", [corner_spec(), tiny_spec()])
def test_a_tuned_recipe(spec: ModelSpec, tmp_path: Path) -> None:
    text = recipe_text(spec, "camvid", PrecisionMix("fp32"), {}, [], {}, [])
    assert ("scale" in tomllib.loads(text)["input"]) == spec.resize_corners
    (tmp_path / "r.toml").write_text(text)
    found = load_recipe(str(tmp_path / "r.toml"))
    assert (found.resize_corners, found.scale) == (spec.resize_corners, spec.scale)
