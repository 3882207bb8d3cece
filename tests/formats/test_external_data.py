"""Weights in a file beside the model: read there and nowhere else, whole, and covered by the model's hash."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from foreign_models import SAID, SIZE, net, reference, save
from numpy.typing import NDArray

from rtformer_deploy.cli import main
from rtformer_deploy.commands.inspect import describe
from rtformer_deploy.errors import ModelError
from rtformer_deploy.formats.model_file import file_sha256, load_model, parse_model
from rtformer_deploy.opening import open_any

IMAGE = np.random.default_rng(5).standard_normal((1, 3, *SIZE)).astype(np.float32)


def split(path: Path, location: str = "m.onnx.data", seed: float = 1.0) -> Path:
    """A model whose weights lie in another file, as torch.onnx.export writes it, times `seed`."""
    nodes, weights = net()
    save(path, nodes, weights)
    model = onnx.load(path)
    data = b""
    for tensor in model.graph.initializer:
        values = (onnx.numpy_helper.to_array(tensor) * np.float32(seed)).tobytes()
        refer(tensor, location=location, offset=len(data), length=len(values))
        data += values
    (path.parent / location).write_bytes(data)
    path.write_bytes(model.SerializeToString())
    return path


def refer(tensor: onnx.TensorProto, **places: object) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, place in places.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(place)


def plan_of(path: Path, folder: Path) -> Path:
    result = CliRunner().invoke(main, ["build-engine", str(path), "--backend", "onnxruntime", "-o", str(folder / "e.plan"), *SAID])
    assert result.exit_code == 0, result.output
    return folder / "e.plan"


def test_the_data_beside_the_model_counts_whatever_the_working_folder_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seed in (("model", 1.0), ("here", 2.0), ("plan", 1.0)):
        (tmp_path / name).mkdir()
        if name != "plan":
            split(tmp_path / name / "m.onnx", seed=seed)
    monkeypatch.chdir(tmp_path / "here")
    path = tmp_path / "model" / "m.onnx"
    expected: NDArray[Any] = reference(path, IMAGE)
    plan = plan_of(path, tmp_path / "plan")
    np.testing.assert_array_equal(reference(plan, IMAGE), expected)  # the plan holds the weights: nothing lies beside it
    assert sorted(each.name for each in plan.parent.iterdir()) == ["e.plan", "e.plan.json"]
    with open_any(plan) as runner:
        assert runner.info is not None
        assert runner.info.model_sha256 == file_sha256(load_model(path))


def test_the_hash_changes_with_the_data(tmp_path: Path) -> None:
    path = split(tmp_path / "m.onnx")
    first, model = file_sha256(load_model(path)), path.read_bytes()
    split(path, seed=3.0)
    assert path.read_bytes() == model
    assert file_sha256(load_model(path)) != first
    plan = plan_of(path, tmp_path)  # the model was not tried with this data
    np.testing.assert_array_equal(reference(plan, IMAGE), reference(path, IMAGE))
    facts = describe(path).facts
    assert facts["file"]["sha256_with_data_files"] == file_sha256(load_model(path))


def test_data_in_a_folder_of_the_model_s_is_read(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "link").symlink_to("weights")
    path = split(tmp_path / "m.onnx", "link/all.bin")
    assert load_model(path).graph.initializers["w1"].const_value is not None


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("/etc/passwd", "is not a file in the model's folder"),
        ("../outside.data", "is not a file in the model's folder"),
        ("a/../../outside.data", "is not a file in the model's folder"),
        ("..\\outside.data", "is not a file in the model's folder"),
        ("C:\\outside.data", "is not a file in the model's folder"),
        ("", "is not a file in the model's folder"),
        ("a\0b", "is not a file in the model's folder"),
        ("away.data", "is a link that leads out of the model's folder"),
        ("folder/outside.data", "is a link that leads out of the model's folder"),
        ("missing.data", "keeps its weights in missing.data, and there is no such file beside it"),
        ("pipe", "there is no such file beside it"),
    ],
)  # fmt: skip
def test_data_elsewhere_is_refused(location: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = split(tmp_path / "in" / "m.onnx")
    (tmp_path / "outside.data").write_bytes(bytes(10_000))
    (path.parent / "away.data").symlink_to("../outside.data")
    (path.parent / "folder").symlink_to("..")
    os.mkfifo(path.parent / "pipe")
    model = onnx.load(path, load_external_data=False)
    refer(model.graph.initializer[0], location=location, offset=0, length=1728)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError) as error:
        load_model(path)
    assert message in str(error.value)
    for command in ("inspect", "build-engine"):
        result = CliRunner().invoke(main, [command, str(path), *(SAID if command == "build-engine" else ())])
        assert (result.exit_code, message in result.output) == (1, True), result.output


def place(**places: object) -> Callable[[onnx.TensorProto], None]:
    return lambda tensor: refer(tensor, location="m.onnx.data", **places)


def huge(tensor: onnx.TensorProto) -> None:
    tensor.dims[:] = [600_000_000]
    refer(tensor, location="m.onnx.data")


def negative(tensor: onnx.TensorProto) -> None:
    tensor.dims[0] = -16


def text(tensor: onnx.TensorProto) -> None:
    tensor.data_type = onnx.TensorProto.STRING


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (place(offset=10**9, length=1728), "it needs m.onnx.data up to byte 1,000,001,728, where it is shorter"),
        (place(offset=0, length=4), "4 bytes are kept for it, and its shape needs 1,728"),
        (place(offset=-8, length=1728), "its offset is '-8'; expected a whole number"),
        (place(offset="²", length=1728), "its offset is '²'; expected a whole number"),
        (place(offset="9" * 5000, length=1728), "expected a whole number"),
        (huge, "and its data files hold more than 2 GiB, which one ONNX file or plan cannot"),
        (negative, "it has a negative size"),
        (text, "its type 8 cannot be stored in a file"),
    ],
)
def test_data_that_cannot_be_the_weights_is_refused(change: Any, message: str, tmp_path: Path) -> None:
    path = split(tmp_path / "m.onnx")
    model = onnx.load(path, load_external_data=False)
    change(model.graph.initializer[0])
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError) as error:
        load_model(path)
    assert message in str(error.value)
    assert len(str(error.value)) < 500


def test_bytes_alone_have_nothing_beside_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = split(tmp_path / "m.onnx")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="keeps weights in other files"):
        parse_model(path.read_bytes())
