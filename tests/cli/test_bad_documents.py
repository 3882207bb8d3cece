"""Documents from strangers on the command line: one message that says which field is wrong, and nothing outside is touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from click.testing import CliRunner
from helpers import tiny_model, tiny_spec
from PIL import Image
from small_training import write_dataset

from rtformer_deploy.backends import build
from rtformer_deploy.cli import main
from rtformer_deploy.formats.engine_file import save_engine
from rtformer_deploy.formats.model_file import SPEC_KEY, save_model
from rtformer_deploy.types import BuildOptions, Engine


def refused(*arguments: str | Path) -> str:
    """The one message of a command that failed."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1, result.output
    assert result.output.count("Error: ") == 1
    return result.output


@pytest.fixture(scope="module")
def engine() -> Engine:
    return build(tiny_model(), tiny_spec(), "onnxruntime", BuildOptions(threads=1))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: Engine) -> Path:
    """A folder with an engine, its model and a picture."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    save_engine(engine, Path("e.plan"))
    save_model(tiny_model(), Path("m.onnx"))
    Image.new("RGB", (50, 40), "red").save("a.png")
    return tmp_path / "work"


def edit_sidecar(**values: Any) -> None:
    path = Path("e.plan.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def edit_stamp(**values: Any) -> None:
    proto = onnx.load("m.onnx")
    stamp = next(each for each in proto.metadata_props if each.key == SPEC_KEY)
    stamp.value = json.dumps(json.loads(stamp.value) | values)
    onnx.save(proto, "m.onnx")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch": "many"}, "batch is 'many'; expected a list"),
        ({"batch": [1, 3, 2]}, "batch is 1, 3, 2; expected the smallest, usual and largest, which rise"),
        ({"batch": [4, 4, 4]}, "batch is 4, 4, 4; the input has a fixed batch of 1"),
        ({"inputs": []}, "inputs is a list of 0 values; expected at least 1 value"),
        ({"outputs": []}, "outputs is a list of 0 values; expected at least 1 value"),
        ({"plan_sha256": "x"}, "plan_sha256 is 'x'; expected 64 hexadecimal digits"),
        ({"flips": 3}, "flips is 3; expected a number, at most 1"),
        ({"precision": {"asked": "int4", "state": "verified"}}, "precision.asked is 'int4'; expected one of fp16, fp32, fp8, int8"),
        ({"notes": "none"}, "notes is 'none'; expected a list"),
        ({"version": "new"}, "version is 'new'; expected a whole number, at least 1"),
    ],
)
@pytest.mark.parametrize("command", [("inspect", "e.plan"), ("bench", "e.plan"), ("segment", "e.plan", "a.png", "--output", "out")])
def test_a_sidecar(here: Path, command: tuple[str, ...], values: dict[str, Any], message: str) -> None:
    edit_sidecar(**values)
    assert f"e.plan.json cannot be read: {message}" in refused(*command)


SPECS = [
    ({"palette": [[0, 0, 300]] * 5}, "palette[0][2] is 300; expected a whole number, at most 255"),
    ({"palette": [[0, 0, 0]] * 4}, "palette has 4 colours for 5 classes"),
    ({"palette": [[0, 0, 0]] * 300}, "palette is a list of 300 values; expected at most 255 values"),
    ({"classes": []}, "classes is a list of 0 values; expected at least 1 value"),
    ({"classes": ["a", "b", "c", "d", ""]}, "classes[4] is ''; expected at least 1 character"),
    ({"arch": 3}, "arch is 3; expected a table"),
    ({"arch": {"name": [[1]]}}, "arch.name[0] is a list of 1 value; expected"),
    ({"std": [0, 1, 1]}, "std[0] is 0; expected a number, at least 1e-06"),
    ({"mean": [1, "x", 1]}, "mean[1] is 'x'; expected a number"),
    ({"sha256": "abc"}, "sha256 is 'abc'; expected 64 hexadecimal digits"),
    ({"name": "../../etc/x"}, "name is '../../etc/x'; expected a plain file name"),
    ({"head": "all"}, "head is 'all'; expected one of labels, logits, lowres"),
    (
        {"input": {"name": "input", "shape": [1, 3, 20000, 20000], "dtype": "float32"}},
        "input is 20000x20000; height and width are from 1 to",
    ),
    (
        {"input": {"name": "input", "shape": [1, 3, 16384, 16384], "dtype": "float32"}},
        "input is 16384x16384: 268,435,456 pixels, more than",
    ),
    ({"input": {"name": "input", "shape": [10**9, 3, 64, 96], "dtype": "float32"}}, "input takes 1000000000 frames of 64x96, more than"),
    ({"input": {"name": "input", "shape": [1, 3], "dtype": "float32"}}, "input is float32 1x3; expected float32 Nx3xHxW"),
    ({"input": 3}, "input is 3; expected a table"),
]


@pytest.mark.parametrize(("values", "message"), SPECS)
def test_a_stamp(here: Path, values: dict[str, Any], message: str) -> None:
    edit_stamp(**values)
    before = sorted(here.rglob("*"))
    for command in (("inspect", "m.onnx"), ("build-engine", "m.onnx", "--backend", "onnxruntime")):
        assert f"The model's {SPEC_KEY} cannot be read: {message}" in refused(*command)
    assert sorted(here.rglob("*")) == before


def test_a_spec_in_a_sidecar_is_checked_alike(here: Path) -> None:
    spec = json.loads(Path("e.plan.json").read_text())["spec"]
    edit_sidecar(spec=spec | {"palette": [[0, 0, 0]] * 4})
    assert "e.plan.json cannot be read: spec.palette has 4 colours for 5 classes." in refused("segment", "e.plan", "a.png", "-o", "out")
    edit_sidecar(spec=spec | {"output": spec["output"] | {"shape": [1, 7, 8, 12]}})
    assert "spec.output gives 7 classes; classes names 5" in refused("inspect", "e.plan")


def test_a_stamp_that_does_not_fit_its_graph(here: Path) -> None:
    three = [[0, 0, 0]] * 3
    output = {"name": "logits", "shape": [1, 3, 8, 12], "dtype": "float32"}
    edit_stamp(classes=["a", "b", "c"], palette=three, output=output)
    assert "m.onnx: logits is 1x5x8x12; its stamp says 1x3x8x12" in refused("build-engine", "m.onnx", "--backend", "onnxruntime")


def test_deep_brackets(here: Path) -> None:
    Path("e.plan.json").write_text("[" * 100_000)
    assert "e.plan.json cannot be read: its lists and tables are nested more than 32 deep." in refused("bench", "e.plan")
    proto = onnx.load("m.onnx")
    next(each for each in proto.metadata_props if each.key == SPEC_KEY).value = '{"a":' * 100_000
    onnx.save(proto, "m.onnx")
    assert "its lists and tables are nested more than 32 deep" in refused("build-engine", "m.onnx")


def test_a_stamp_of_a_newer_version_is_a_note(here: Path) -> None:
    edit_stamp(version=7, colour="green")
    note = f"The model's {SPEC_KEY} is of version 7, of which this version of rtformer-deploy does not read: colour."
    done = CliRunner().invoke(main, ["build-engine", "m.onnx", "--backend", "onnxruntime", "-o", "new.plan"])
    assert done.exit_code == 0, done.output
    assert note in done.output
    assert note in json.loads(Path("new.plan.json").read_text())["notes"]
    assert note in CliRunner().invoke(main, ["bench", "m.onnx", "--seconds", "0.01"]).output.replace("\n", " ")


def test_a_dotted_key_that_tomllib_would_take_a_minute_for(here: Path) -> None:
    Path("r.toml").write_text("a." * 20_000 + "a = 1\n")
    assert "Cannot read r.toml: it has a key of 20,001 parts, more than 16." in refused("build-engine", "m.onnx", "--recipe", "r.toml")


RECIPE = 'name = "{name}"\ndataset = "{dataset}"\n[architecture]\nname = "rtformer"\nbase_channels = 8\n[input]\nsize = [48, 64]\n'


def test_a_recipes_name_is_no_path(here: Path) -> None:
    victim = here.parent / "victim" / "x.safetensors"
    victim.parent.mkdir()
    victim.write_text("mine")
    dataset = write_dataset(here / "data", frames=2)
    Path("r.toml").write_text(RECIPE.format(name="../../victim/x", dataset=dataset))
    message = refused("train", "--recipe", "r.toml", "--root", dataset.parent, "-o", "out", "--steps", "1", "--batch", "2")
    assert "r.toml: name is '../../victim/x'; expected a plain file name" in message
    assert victim.read_text() == "mine"
    assert not Path("out").exists()


def test_a_layout_stays_in_the_root(here: Path) -> None:
    dataset = write_dataset(here / "data", frames=2)
    dataset.write_text(dataset.read_text().replace("images/{split}", "../data/images/{split}"))
    assert "[layout] leads out of the dataset's folder: ../data/images/{split}/{name}.jpg" in refused(
        "evaluate", "m.onnx", "--dataset", dataset, "--root", dataset.parent
    )
