"""verify: which stage differs first, which pixels change, and the gates."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from helpers import frames, tiny_model, tiny_spec
from onnx import numpy_helper
from PIL import Image
from small_training import write_dataset
from test_evaluate import write_model

from rtformer_deploy.backends import build
from rtformer_deploy.cli import main
from rtformer_deploy.evaluation.boundary import Borders
from rtformer_deploy.formats.engine_file import save_engine
from rtformer_deploy.formats.model_file import save_model, stamp_spec
from rtformer_deploy.types import BuildOptions


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["verify", *map(str, arguments), "--threads", "1"])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(frames((50, 70))[0]).save("street.png")
    save_model(tiny_model(), Path("a.onnx"))
    save_model(tiny_model(seed=1), Path("other.onnx"))
    return tmp_path


def test_two_builds_of_one_model_are_equal(here: Path) -> None:
    save_engine(build(tiny_model(), tiny_spec(), "openvino", BuildOptions()), Path("e.plan"))
    result = run("a.onnx", "e.plan", "street.png", "--max-flips", "0.5%", "--json", "v.json", "--picture", "v.png")
    assert result.exit_code == 0, result.output
    found = json.loads(Path("v.json").read_text())
    assert [stage["differs"] for stage in found["stages"]] == [False] * 6
    assert found["first_difference"] is None
    assert np.asarray(Image.open("v.png")).shape == (50, 70, 3)


def test_other_weights_differ_at_the_logits_and_fail_the_gate(here: Path) -> None:
    result = run("a.onnx", "other.onnx", "street.png", "--max-flips", "0.01", "--json", "v.json")
    assert result.exit_code == 3, result.output
    assert "First difference: logits" in result.output
    found = json.loads(Path("v.json").read_text())
    assert found["flips"] > 0.01
    assert found["flips_within_margin"] == found["flips"]


def test_another_mean_differs_at_normalise_and_another_size_at_resize(here: Path) -> None:
    model = tiny_model()
    stamp_spec(model, replace(tiny_spec(), mean=(0.5, 0.5, 0.5)))
    save_model(model, Path("mean.onnx"))
    save_model(tiny_model(size=(32, 48)), Path("small.onnx"))
    assert "First difference: normalise" in run("a.onnx", "mean.onnx", "street.png").output
    assert "First difference: resize" in run("a.onnx", "small.onnx", "street.png").output


def test_labels_have_no_logits_and_are_compared(here: Path) -> None:
    save_model(tiny_model(head="labels"), Path("labels.onnx"))
    result = run("a.onnx", "labels.onnx", "street.png")
    assert result.exit_code == 0, result.output
    assert "not compared" in result.output
    assert "Changed pixels" in result.output


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["none.png"], 1, "no image none.png"),
        ([], 2, "nothing to compare on"),
        (["street.png", "--max-drop", "1"], 2, "needs labels"),
        (["street.png", "--max-flips", "5"], 2, "no share"),
        (["street.png", "--json", "no/v.json"], 1, "Cannot write"),
    ],
)
def test_bad_calls(here: Path, more: list[str], code: int, message: str) -> None:
    result = run("a.onnx", "a.onnx", *more)
    assert result.exit_code == code, result.output
    assert message in result.output


def test_borders_by_hand() -> None:
    a = np.zeros((100, 100), np.uint8)
    a[:, 50:] = 1
    for shift, wanted in ((0, 1.0), (1, 1.0), (2, 0.0)):  # the tolerance is 1.06 pixels
        borders = Borders(2)
        borders.add(a, np.roll(a, shift, 1) if shift == 0 else np.pad(a, ((0, 0), (shift, 0)))[:, :100])
        assert borders.score() == wanted


def test_labels_give_miou_and_its_gate(here: Path) -> None:
    own = write_dataset(here / "d", frames=2)
    write_model(here / "good.onnx")
    proto = onnx.load("good.onnx")
    bias = proto.graph.initializer[1]
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.array([0.0, 0.1, 0.0], np.float32), bias.name))
    onnx.save(proto, "bad.onnx")
    said = ["--classes", own, "--mean", "0,0,0", "--std", "1,1,1"]
    call = ["good.onnx", "bad.onnx", "--dataset", own, "--root", own.parent, *said, "--json", "v.json"]
    failed = run(*call, "--max-drop", 0)
    found = json.loads(Path("v.json").read_text())
    assert found["images"] == 2
    assert found["miou_drop"] == pytest.approx(100 * (found["a_scores"]["miou"] - found["b_scores"]["miou"]), abs=1e-3)
    assert found["miou_drop"] > 0
    assert failed.exit_code == 3, failed.output
    assert "--max-drop" in failed.output
    assert run(*call, "--max-drop", 99).exit_code == 0
    counts = run("a.onnx", "good.onnx", "street.png", *said)
    assert counts.exit_code == 1
    assert "5 classes apart and B 3" in counts.output
    both = run("a.onnx", "a.onnx", "--dataset", own, "--root", own.parent)
    assert both.exit_code == 1
    assert "no IoU" in both.output


def test_labels_that_are_all_ignored_are_an_error_not_a_drop_of_nan(here: Path) -> None:
    own = write_dataset(here / "d", frames=1)
    for label in (here / "d" / "labels" / "val").glob("*.png"):
        Image.new("L", (64, 48), 9).save(label)
    write_model(here / "m.onnx")
    said = ["--classes", own, "--mean", "0,0,0", "--std", "1,1,1"]
    result = run("m.onnx", "m.onnx", "--dataset", own, "--root", own.parent, *said, "--max-drop", 1)
    assert result.exit_code == 1
    assert "There is nothing to score: all pixels of the labels are ignored." in result.output
