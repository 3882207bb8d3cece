"""What the output of a foreign model means: segment gives what ONNX Runtime's output of the file says, with all optimisation off."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from foreign_models import SAID, SIZE, net, number, reference, save, value
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image

from rtformer_deploy.cli import main
from rtformer_deploy.formats.external_model import ExternalModel
from rtformer_deploy.opening import open_any
from rtformer_deploy.pipeline import read_model
from rtformer_deploy.types import Frame

node = helper.make_node
FULL = (1, 4, *SIZE)
Labels = Callable[[NDArray[Any]], NDArray[Any]]


@pytest.fixture(scope="module")
def frame() -> Frame:
    values = np.random.default_rng(3).integers(0, 256, (4, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(values).resize(SIZE[::-1], Image.Resampling.BICUBIC))


def image_of(frame: Frame) -> NDArray[np.float32]:
    return (((frame.astype(np.float32) / 255 - 0.5) / 0.25).transpose(2, 0, 1)[None]).astype(np.float32)


def run(*words: object) -> Result:
    return CliRunner().invoke(main, list(map(str, words)))


def segment(model: Path, frame: Frame, folder: Path, *words: object) -> tuple[NDArray[np.uint8], str]:
    """The label map that `segment` writes for a frame, and what it prints."""
    Image.fromarray(frame).save(folder / "frame.png")
    result = run("segment", model, folder / "frame.png", "-o", folder / "out", "--overwrite", *SAID, *words)
    assert result.exit_code == 0, result.output
    return np.asarray(Image.open(folder / "out" / "frame_labels.png")), result.output


def up(mode: str = "linear", source: str = "s", target: str = "u") -> Any:
    return node("Resize", [source, "", "two"], [target], mode=mode, coordinate_transformation_mode="half_pixel")


TWO = number("two", [1, 1, 2, 2], np.float32)
FIRST, AXES = number("first", [1]), number("last", [3])


def build(path: Path, end: list[Any], shape: Any, kind: int = TensorProto.FLOAT, classes: int = 4, more: list[Any] | None = None) -> Path:
    nodes, weights = net(*end, classes=classes)
    return save(path, nodes, [*weights, TWO, FIRST, AXES, *(more or [])], outputs=[value("y", shape, kind)])


ARGMAX_KEPT = node("ArgMax", ["u"], ["l"], axis=1, keepdims=1)
ARGMAX = node("ArgMax", ["u"], ["y"], axis=1, keepdims=0)
INT64, FLOAT, HALF = TensorProto.INT64, TensorProto.FLOAT, TensorProto.FLOAT16
#: name -> the nodes after the scores, the output's shape and type, and the words on the command line
MADE: dict[str, tuple[list[Any], Any, int, list[str]]] = {
    "labels (N, H, W)": ([up(), ARGMAX], (1, *SIZE), INT64, ["--classes", "4"]),
    "labels (N, 1, H, W)": ([up(), ARGMAX_KEPT, node("Identity", ["l"], ["y"])], (1, 1, *SIZE), INT64, ["--classes", "4"]),
    "labels as float": ([up(), ARGMAX_KEPT, node("Cast", ["l"], ["y"], to=FLOAT)], (1, 1, *SIZE), FLOAT, ["--classes", "4"]),
    "labels, cast, then squeezed": (
        [up(), ARGMAX_KEPT, node("Cast", ["l"], ["f"], to=FLOAT), node("Squeeze", ["f", "first"], ["y"])],
        (1, *SIZE), FLOAT, ["--classes", "4"],
    ),
    "labels (N, H, W, 1)": (
        [up(), ARGMAX_KEPT, node("Transpose", ["l"], ["y"], perm=[0, 2, 3, 1])], (1, *SIZE, 1), INT64, ["--classes", "4"],
    ),
    "labels at half the size": ([node("ArgMax", ["s"], ["y"], axis=1, keepdims=0)], (1, 8, 12), INT64, ["--classes", "4"]),
    "channels last": ([up(), node("Transpose", ["u"], ["y"], perm=[0, 2, 3, 1])], (1, *SIZE, 4), FLOAT, []),
    "no batch": ([up(), node("Squeeze", ["u", "zero"], ["y"])], FULL[1:], FLOAT, []),
    "FP16": ([up(), node("Cast", ["u"], ["y"], to=HALF)], FULL, HALF, []),
}  # fmt: skip


def wanted(output: NDArray[Any], words: list[str]) -> NDArray[Any]:
    if "--classes" in words and output.shape[-1] != 4:
        return np.round(output.astype(np.float64)).reshape(output.shape[1:3] if output.shape[-1] == 1 else output.shape[-2:])
    scores = output if output.ndim == 4 else output[None]
    return np.asarray(scores[0].argmax(2 if scores.shape[-1] == 4 else 0))


@pytest.mark.parametrize("name", MADE)
def test_labels_and_scores_in_any_form_are_taken(name: str, tmp_path: Path, frame: Frame) -> None:
    end, shape, kind, words = MADE[name]
    path = build(tmp_path / "m.onnx", end, shape, kind, more=[number("zero", [0])])
    expected = wanted(reference(path, image_of(frame)), words).astype(np.uint8)
    scale = SIZE[0] // expected.shape[0]
    labels, _ = segment(path, frame, tmp_path, *words)
    np.testing.assert_array_equal(labels, expected.repeat(scale, 0).repeat(scale, 1))
    assert len(np.unique(labels)) > 1


#: name -> the nodes after the scores, the output's type, what is said, and the threshold
ONE: dict[str, tuple[list[Any], list[str], float]] = {
    "logit": ([up(target="y")], [], 0.0),
    "sigmoid": ([up(), node("Sigmoid", ["u"], ["y"])], [], 0.5),
    "sigmoid before the upsampling": ([node("Sigmoid", ["s"], ["p"]), up(source="p", target="y")], [], 0.5),
    "sigmoid, operator by operator": (
        [up(), node("Neg", ["u"], ["n"]), node("Exp", ["n"], ["e"]), node("Add", ["e", "one"], ["d"]), node("Div", ["one", "d"], ["y"])],
        [], 0.5,
    ),
    "logit, told": ([up(target="y")], ["--threshold", "0.3", "--classes", "2"], 0.3),
    "sigmoid, told": ([up(), node("Sigmoid", ["u"], ["y"])], ["--threshold", "0.4"], 0.4),
    "no channel": ([up(), node("Squeeze", ["u", "first"], ["y"])], ["--classes", "1"], 0.0),
}  # fmt: skip


@pytest.mark.parametrize("name", ONE)
def test_one_channel_is_background_and_object(name: str, tmp_path: Path, frame: Frame) -> None:
    end, words, threshold = ONE[name]
    shape = (1, *SIZE) if name == "no channel" else (1, 1, *SIZE)
    path = build(tmp_path / "m.onnx", end, shape, classes=1, more=[number("one", 1, np.float32)])
    expected = reference(path, image_of(frame)).reshape(SIZE) > threshold
    plan = tmp_path / "engine.plan"
    result = run("build-engine", path, "--backend", "onnxruntime" if words else "openvino", "-o", plan, *SAID, *words)
    assert result.exit_code == 0, result.output
    spec = json.loads(Path(f"{plan}.json").read_text())["spec"]
    assert (spec["threshold"], len(spec["classes"])) == (threshold, 2)
    assert spec["probabilities"] == name.startswith("sigmoid")
    with open_any(plan) as runner:
        (labels,) = runner.run([frame])
        np.testing.assert_array_equal(labels, expected.astype(np.uint8))
        assert 0 < labels.mean() < 1
        scores = runner.logits([frame])
        assert scores.shape == (1, 2, *SIZE)
        np.testing.assert_array_equal(scores[0].argmax(0), labels)


def test_the_confidence_of_probabilities_is_the_winners(tmp_path: Path, frame: Frame) -> None:
    path = build(tmp_path / "m.onnx", [up(), node("Sigmoid", ["u"], ["y"])], (1, 1, *SIZE), classes=1)
    chance = reference(path, image_of(frame))[0, 0]
    segment(path, frame, tmp_path, "--confidence")
    levels = np.asarray(Image.open(next((tmp_path / "out").glob("*confidence*"))))
    np.testing.assert_allclose(levels, 255 * np.maximum(chance, 1 - chance), atol=0.51)


def test_the_confidence_of_one_logit_is_its_sigmoid(tmp_path: Path, frame: Frame) -> None:
    path = build(tmp_path / "m.onnx", [up(target="y")], (1, 1, *SIZE), classes=1)
    chance = 1 / (1 + np.exp(-reference(path, image_of(frame))[0, 0]))
    segment(path, frame, tmp_path, "--confidence")
    levels = np.asarray(Image.open(next((tmp_path / "out").glob("*confidence*"))))
    np.testing.assert_allclose(levels, 255 * np.maximum(chance, 1 - chance), atol=0.51)


def test_an_id_beyond_the_classes_is_an_error_and_never_another_class(tmp_path: Path, frame: Frame) -> None:
    path = build(tmp_path / "m.onnx", [up(), ARGMAX], (1, *SIZE), INT64, classes=300)
    most = reference(path, image_of(frame)).max()
    Image.fromarray(frame).save(tmp_path / "frame.png")
    result = run("segment", path, tmp_path / "frame.png", "-o", tmp_path / "out", *SAID, "--classes", 200)
    assert result.exit_code == 1
    assert f"The engine gives the class id {most}, and there are 200 classes: 0 to 199." in result.output
    assert not list(tmp_path.glob("out/*.png"))
    assert "300 classes do not fit" in run("build-engine", path, *SAID, "--classes", 300).output


def test_segments_table_adds_up_to_all_pixels(tmp_path: Path, frame: Frame) -> None:
    path = build(tmp_path / "m.onnx", [up(), ARGMAX], (1, *SIZE), INT64)
    for words in ((), ("--only", "class0")):
        _, printed = segment(path, frame, tmp_path, "--classes", 4, *words)
        shares = [float(line.split()[-1].strip("<%")) for line in printed.splitlines() if line.rstrip().endswith("%")]
        assert sum(shares) == pytest.approx(100, abs=0.3)
    assert "no class" in printed


def two_heads(path: Path, *names: str) -> Path:
    nodes, weights = net(node("Identity", ["s"], ["main"]), node("MaxPool", ["s"], ["aux"], kernel_shape=[2, 2], strides=[2, 2]))
    shapes = {"main": (1, 4, 8, 12), "aux": (1, 4, 4, 6)}
    return save(path, nodes, weights, outputs=[value(name, shapes[name]) for name in names])


@pytest.mark.parametrize("order", [("main", "aux"), ("aux", "main")])
def test_several_outputs_are_listed_and_one_is_named(order: tuple[str, str], tmp_path: Path) -> None:
    path = two_heads(tmp_path / "m.onnx", *order)
    listed = ", ".join({"main": "main (float32 1x4x8x12)", "aux": "aux (float32 1x4x4x6)"}[name] for name in order)
    for command in ("build-engine", "bench", "profile"):
        result = run(command, path, *SAID)
        assert result.exit_code == 1
        assert f"m.onnx has 2 outputs: {listed}." in result.output
        assert "--output-name NAME" in result.output
    result = run("build-engine", path, *SAID, "--output-name", "third")
    assert "has no output third; its outputs: " + listed in result.output
    said = ExternalModel(mean=(0.5,) * 3, std=(0.25,) * 3, output_name="main")
    model, spec = read_model(path, said)
    assert (spec.output.name, spec.output.shape) == ("main", (1, 4, 8, 12))
    assert [output.name for output in model.graph.outputs] == ["main"]
    assert "MaxPool" not in {each.op_type for each in model.graph}  # the other head costs nothing


@pytest.mark.parametrize("early", [False, True], ids=["upsampled", "before"])
def test_channels_that_a_sigmoid_judges_apart_get_a_background(early: bool, tmp_path: Path, frame: Frame) -> None:
    end = [node("Sigmoid", ["s"], ["y"])] if early else [up(), node("Sigmoid", ["u"], ["y"])]
    path = build(tmp_path / "m.onnx", end, (1, 4, 8, 12) if early else FULL)
    scores = reference(path, image_of(frame))[0]
    result = run("build-engine", path, "--backend", "onnxruntime", "-o", tmp_path / "plain.plan", *SAID)
    assert "A sigmoid judges each of 4 channels by themselves" in result.output
    plan = tmp_path / "engine.plan"
    result = run("build-engine", path, "--backend", "openvino", "-o", plan, *SAID, "--threshold", "0.55")
    assert (result.exit_code, "A sigmoid judges" in result.output) == (0, False), result.output
    spec = json.loads(Path(f"{plan}.json").read_text())["spec"]
    assert (spec["threshold"], spec["classes"]) == (0.55, ["background", "class1", "class2", "class3", "class4"])
    with open_any(plan) as runner:
        (labels,), (found,) = runner.run([frame]), runner.logits([frame])
    np.testing.assert_allclose(found[1:], scores, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(found[0], np.float32(0.55))
    if not early:
        np.testing.assert_array_equal(labels, np.where((scores > 0.55).any(0), scores.argmax(0) + 1, 0))
    assert 0 < (labels == 0).mean() < 1


@pytest.mark.parametrize(
    ("end", "shape", "words", "message"),
    [
        ([up(), node("Flatten", ["u"], ["y"])], (1, 4 * SIZE[0] * SIZE[1]), (), "1x1536: scores must be (N, classes, h, w)"),
        ([up(target="y")], FULL, ("--threshold", 0.5), "gives 4 channels; --threshold belongs to a model of one channel"),
        ([up(), node("Sigmoid", ["u"], ["y"])], FULL, ("--threshold", 0.5, "--classes", 4), "gives 5 classes; --classes 4 are 4"),
        ([up(target="y")], FULL, ("--classes", 5), "gives 4 classes; --classes 5 are 5"),
        ([up(), ARGMAX], (1, *SIZE), (), "--classes missing"),
    ],
)  # fmt: skip
def test_what_cannot_be_classes_is_refused(end: list[Any], shape: Any, words: Any, message: str, tmp_path: Path) -> None:
    path = build(tmp_path / "m.onnx", end, shape, INT64 if end[-1] is ARGMAX else FLOAT)
    result = run("build-engine", path, "-o", tmp_path / "e.plan", *SAID, *words)
    assert (result.exit_code, message in result.output) == (1, True), result.output
    assert not (tmp_path / "e.plan").exists()


def test_one_channel_that_is_no_pair_of_classes_is_refused(tmp_path: Path) -> None:
    path = build(tmp_path / "m.onnx", [up(target="y")], (1, 1, *SIZE), classes=1)
    result = run("build-engine", path, "-o", tmp_path / "e.plan", *SAID, "--classes", 19)
    assert "gives one channel, for background and object; --classes 19 are 19." in result.output


def test_two_inputs_are_refused_without_a_circle(tmp_path: Path) -> None:
    nodes, weights = net(node("Mul", ["s", "scale"], ["y"]))
    path = save(tmp_path / "m.onnx", nodes, weights, inputs=[value("x", (1, 3, *SIZE)), value("scale", (1,))])
    for words in ((), ("--input", "x"), ("--input", "scale")):
        result = run("build-engine", path, *SAID, *words)
        assert "m.onnx needs 2 inputs, and an engine takes one image: x (float32 1x3x16x24), scale (float32 1)." in result.output
        assert "--input" not in result.output


def test_an_input_that_the_classes_do_not_depend_on_is_left_out(tmp_path: Path, frame: Frame) -> None:
    nodes, weights = net(node("Mul", ["s", "scale"], ["other"]), node("Identity", ["s"], ["y"]))
    path = save(
        tmp_path / "m.onnx", nodes, weights, inputs=[value("scale", (1,)), value("x", (1, 3, *SIZE))],
        outputs=[value("other", (1, 4, 8, 12)), value("y", (1, 4, 8, 12))],
    )  # fmt: skip
    _, spec = read_model(path, ExternalModel(mean=(0.5,) * 3, std=(0.25,) * 3, output_name="y"))
    assert spec.input.name == "x"
