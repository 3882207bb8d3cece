"""Evaluation: scores from one confusion matrix, over any Runner, and what the command writes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from contextlib import chdir
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from helpers import StoppedError, stop
from odd_pngs import png16
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from small_network import write_small
from small_training import small_recipe, write_dataset

from rtformer_deploy.cli import main
from rtformer_deploy.datasets import Dataset, open_dataset
from rtformer_deploy.errors import DatasetError
from rtformer_deploy.evaluation.evaluate import evaluate
from rtformer_deploy.evaluation.metrics import confusion, scores
from rtformer_deploy.formats.recipe import load_recipe
from rtformer_deploy.formats.weights_file import weights_metadata
from rtformer_deploy.image.reader import ImageReader
from rtformer_deploy.nn import build_network
from rtformer_deploy.nn.weights import save_weights
from rtformer_deploy.opening import open_scales
from rtformer_deploy.training.loader import Frames
from rtformer_deploy.training.splits import open_splits
from rtformer_deploy.types import Frame, LabelMap, ModelSpec, TensorSpec


class Told:
    """As much of a Runner as evaluation needs: it predicts what it was told to."""

    max_batch = 1

    def __init__(self, classes: Sequence[str], predict: Callable[[Frame], LabelMap]) -> None:
        spec = load_recipe("rtformer-slim-camvid").spec()
        tensor = TensorSpec("x", (1,), "float32")
        self.spec = ModelSpec("told", spec.arch, tuple(classes), tuple((0, 0, 0) for _ in classes), tensor, tensor)
        self.predict = predict

    def run(self, frames: Sequence[Frame]) -> list[LabelMap]:
        return [self.predict(frame) for frame in frames]


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    path = write_dataset(tmp_path / "data")
    return open_dataset(str(path), path.parent, "val")


def by_colour(frame: Frame) -> LabelMap:
    colours = np.array([[90, 140, 220], [90, 80, 80], [220, 200, 40]])
    return np.asarray(np.square(frame[:, :, None].astype(int) - colours).sum(3).argmin(2), np.uint8)


def test_scores_by_hand() -> None:
    truth = np.array([[0, 0, 1, 1], [1, 2, 2, 255]], np.uint8)
    predicted = np.array([[0, 1, 1, 1], [1, 2, 0, 2]], np.uint8)
    matrix = confusion(truth, predicted, 4, 255)
    assert matrix.tolist() == [[1, 1, 0, 0], [0, 3, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    found = scores(matrix, ("a", "b", "c", "never"))
    assert found.iou["a"] == pytest.approx(1 / 3)
    assert found.iou["b"] == pytest.approx(3 / 4)
    assert found.iou["c"] == pytest.approx(1 / 2)
    assert found.miou == pytest.approx((1 / 3 + 3 / 4 + 1 / 2) / 3)
    assert found.pixel_accuracy == pytest.approx(5 / 7)
    assert found.to_json()["iou"]["never"] is None


def test_a_class_that_is_only_predicted_counts_as_zero() -> None:
    matrix = confusion(np.zeros((1, 4), np.uint8), np.array([[0, 0, 0, 1]], np.uint8), 2, 255)
    assert scores(matrix, ("a", "b")).miou == pytest.approx((3 / 4 + 0) / 2)


def test_one_matrix_over_the_set_is_not_a_mean_over_images(dataset: Dataset) -> None:
    def half(frame: Frame) -> LabelMap:
        labels = by_colour(frame)
        labels[:, : int(frame[30, :, 0].argmax())] = 1
        return labels

    found = evaluate(Told(dataset.labels.names, half), dataset)
    pairs = [dataset.load(index) for index in range(len(dataset))]
    truth = np.concatenate([label.ravel() for _, label in pairs])
    predicted = np.concatenate([half(frame).ravel() for frame, _ in pairs])
    scored = truth != 9
    wanted = []
    for value in range(3):
        both = ((truth == value) & (predicted == value))[scored].sum()
        either = ((truth == value) | (predicted == value))[scored].sum()
        wanted.append(both / either)
    assert list(found.scores.iou.values()) == pytest.approx(wanted)
    assert found.scores.miou == pytest.approx(np.mean(wanted))
    assert int(found.matrix.sum()) == int(scored.sum())
    assert found.frames == 6


def test_another_number_of_classes_is_refused(dataset: Dataset) -> None:
    with pytest.raises(DatasetError, match="2 classes apart and small has 3"):
        evaluate(Told(("a", "b"), by_colour), dataset)


def test_other_names_are_noted(dataset: Dataset) -> None:
    found = evaluate(Told(("sky", "street", "pole"), by_colour), dataset)
    assert "'street'" in found.note
    assert "'road'" in found.note
    assert not evaluate(Told(dataset.labels.names, by_colour), dataset).note


def test_one_class_alone_is_noted_and_no_class_is_an_error(dataset: Dataset) -> None:
    for sample in dataset.samples:
        Image.new("L", (64, 48), 1).save(sample.label)
    assert (
        evaluate(Told(dataset.labels.names, by_colour), dataset).note == "The labels hold no other class than road: the mean says little."
    )
    for sample in dataset.samples:
        Image.new("L", (64, 48), 9).save(sample.label)
    with pytest.raises(DatasetError, match="nothing to score in the 'val' split of small: all its pixels are ignored"):
        evaluate(Told(dataset.labels.names, by_colour), dataset)


def test_the_command_reads_the_labels_first(dataset: Dataset, tmp_path: Path) -> None:
    write_model(tmp_path / "m.onnx")
    own = tmp_path / "data" / "small.toml"
    own.write_text(own.read_text() + "[label_map]\n100 = 0\n101 = 1\n")
    call = ["evaluate", "m.onnx", "--dataset", own, "--root", own.parent, "--classes", "3", "--mean", "0,0,0", "--std", "1,1,1"]
    with chdir(tmp_path):
        result = CliRunner().invoke(main, [*map(str, call), "--json", "s.json"])
    assert result.exit_code == 1
    assert "nothing to score in the 'val' split of small" in result.output
    assert "The labels hold the values 0, 1, 2, 9; [label_map] has 100, 101" in result.output
    assert not (tmp_path / "s.json").exists()


def test_progress_is_told_and_may_stop(dataset: Dataset) -> None:
    seen: list[tuple[int, int]] = []
    runner = Told(dataset.labels.names, by_colour)
    evaluate(runner, dataset, lambda phase, done, total: seen.append((done, total)))
    assert seen == [(4, 6), (6, 6)]
    with pytest.raises(StoppedError):
        evaluate(runner, dataset, stop)


def write_model(path: Path) -> None:
    """An ONNX model from elsewhere that takes each pixel for the class whose colour is nearest."""
    colours = np.array([[90, 140, 220], [90, 80, 80], [220, 200, 40]], np.float32) / 255
    weight = numpy_helper.from_array((2 * colours).reshape(3, 3, 1, 1), "w")
    bias = numpy_helper.from_array(-np.square(colours).sum(1), "b")
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 3, 48, 64)) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Conv", ["x", "w", "b"], ["y"])], "colours", tensors[:1], tensors[1:], [weight, bias])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def test_the_command_on_a_model_from_elsewhere(dataset: Dataset, tmp_path: Path) -> None:
    write_model(tmp_path / "m.onnx")
    own = tmp_path / "data" / "small.toml"
    call = ["evaluate", str(tmp_path / "m.onnx"), "--dataset", str(own), "--root", str(own.parent), "--threads", "1"]
    call += ["--classes", str(own), "--mean", "0,0,0", "--std", "1,1,1"]
    call += ["--json", str(tmp_path / "s.json"), "--picture", str(tmp_path / "c.svg")]
    result = CliRunner().invoke(main, call)
    assert result.exit_code == 0, result.output
    assert max(len(line) for line in result.output.splitlines()) <= 80
    assert "mIoU" in result.output
    found = json.loads((tmp_path / "s.json").read_text())
    assert set(found["iou"]) == {"sky", "road", "pole"}
    assert found["miou"] > 0.95
    assert found["pixel_accuracy"] > 0.97
    wanted = evaluate(Told(dataset.labels.names, by_colour), dataset).to_json()
    assert found["confusion"] == wanted["confusion"]
    assert ElementTree.fromstring((tmp_path / "c.svg").read_text()).tag.endswith("svg")


def test_labels_are_compared_at_their_own_size(tmp_path: Path) -> None:
    write_model(tmp_path / "m.onnx")
    own = write_dataset(tmp_path / "large", frames=2, size=(96, 128))
    call = ["evaluate", str(tmp_path / "m.onnx"), "--dataset", str(own), "--root", str(own.parent), "--json", str(tmp_path / "s.json")]
    result = CliRunner().invoke(main, [*call, "--classes", str(own), "--mean", "0,0,0", "--std", "1,1,1", "--threads", "1"])
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "s.json").read_text())
    ignored = sum(int((np.asarray(Image.open(path)) == 9).sum()) for path in (own.parent / "labels" / "val").glob("*.png"))
    assert np.sum(found["confusion"]) == 2 * 96 * 128 - ignored
    assert found["miou"] > 0.8


def test_bad_calls(tmp_path: Path) -> None:
    write_model(tmp_path / "m.onnx")
    nowhere = CliRunner().invoke(main, ["evaluate", str(tmp_path / "m.onnx"), "--dataset", "camvid", "--root", str(tmp_path / "none")])
    assert nowhere.exit_code == 1
    assert "does not exist" in nowhere.output
    unknown = CliRunner().invoke(main, ["evaluate", str(tmp_path / "m.onnx"), "--dataset", "coconut", "--root", str(tmp_path)])
    assert unknown.exit_code == 1
    assert "There is no dataset" in unknown.output
    unwritable = ["--json", str(tmp_path / "no" / "s.json")]
    folder = CliRunner().invoke(main, ["evaluate", str(tmp_path / "m.onnx"), "--dataset", "camvid", "--root", str(tmp_path), *unwritable])
    assert folder.exit_code == 1
    assert "Cannot write" in folder.output


def in_12_bits(dataset: Dataset) -> Path:
    """The dataset's images again, as the 12 bits of 16-bit PNGs; returns a dataset file for them."""
    for split in ("train", "val"):
        for image in (dataset.samples[0].image.parents[1] / split).glob("*.jpg"):
            image.with_suffix(".png").write_bytes(png16(np.asarray(Image.open(image)).astype(np.uint16) << 4))
    own = dataset.samples[0].image.parents[2] / "small.toml"
    deep = own.with_name("deep.toml")
    deep.write_text(own.read_text().replace("{name}.jpg", "{name}.png"))
    return deep


def test_a_bit_depth_makes_12_bits_score_as_8(dataset: Dataset, tmp_path: Path) -> None:
    write_model(tmp_path / "m.onnx")
    deep = in_12_bits(dataset)
    found = []
    for own in (deep.with_name("small.toml"), deep):
        call = ["evaluate", "m.onnx", "--dataset", own, "--root", own.parent, "--classes", own, "--mean", "0,0,0", "--std", "1,1,1"]
        call += ["--bit-depth", "12", "--threads", "1", "--json", "s.json"]
        with chdir(tmp_path):
            result = CliRunner().invoke(main, [str(each) for each in call])
        assert result.exit_code == 0, result.output
        assert "16-bit samples" not in result.output
        found.append(json.loads((tmp_path / "s.json").read_text())["confusion"])
    assert found[0] == found[1]


def test_training_reads_the_same_frames(dataset: Dataset) -> None:
    deep = in_12_bits(dataset)
    said: list[str] = []
    plain, _ = open_splits(str(deep.with_name("small.toml")), deep.parent)
    twelve, _ = open_splits(str(deep), deep.parent, reader=ImageReader(12))
    unsaid, _ = open_splits(str(deep), deep.parent, reader=ImageReader(say=said.append))
    for index in range(len(plain)):
        np.testing.assert_array_equal(Frames(twelve)[index][0], Frames(plain)[index][0])
        assert Frames(unsaid)[index][0].max() <= 15
    assert len(said) == 1


def test_views_are_asked_for_by_name_and_refused_where_they_cannot_be(tmp_path: Path) -> None:
    small = write_small(tmp_path)
    common = ["evaluate", str(small.model), "--dataset", str(small.dataset), "--root", str(small.root)]
    plain, flipped, tiled = (CliRunner().invoke(main, [*common, *more]) for more in ([], ["--flip"], ["--tiles", "8"]))
    assert [result.exit_code for result in (plain, flipped, tiled)] == [0, 0, 0], flipped.output
    assert "mIoU" in flipped.stdout
    refused = CliRunner().invoke(main, [*common, "--scales", "0.75,1"])
    assert refused.exit_code == 2
    assert "which take any size" in refused.stderr
    assert CliRunner().invoke(main, [*common, "--flip", "--tiles", "8"]).exit_code == 2
    assert CliRunner().invoke(main, [*common, "--scales", "0,1"]).exit_code == 2


def test_scales_average_one_network_at_several_sizes(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "data", frames=2)
    recipe = small_recipe(dataset)
    network = build_network(recipe.arch, 3, aux=False).eval()
    weights = tmp_path / "weights.safetensors"
    save_weights(
        {name: value for name, value in network.state_dict().items() if value.is_floating_point()}, weights, weights_metadata(recipe)
    )
    with contextlib.ExitStack() as stack:
        runners = [stack.enter_context(runner) for runner in open_scales(weights, (0.75, 1.5), threads=1)]
        assert [runner.spec.size for runner in runners] == [(36, 48), (72, 96)]
    arguments = ["evaluate", str(weights), "--dataset", str(dataset), "--root", str(dataset.parent), "--scales", "0.75,1.5", "--flip"]
    result = CliRunner().invoke(main, [*arguments, "--threads", "1"])
    assert result.exit_code == 0, result.output
    assert "mIoU" in result.stdout
