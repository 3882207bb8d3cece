"""describe: what is said about engines, models and weights, and about files that are none of them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import tiny_model, tiny_spec
from numpy.typing import NDArray
from safetensors.numpy import save_file

from rtformer_deploy.backends import build
from rtformer_deploy.commands.inspect import describe
from rtformer_deploy.errors import EngineError, ModelError, WeightsError
from rtformer_deploy.formats.engine_file import save_engine, sidecar
from rtformer_deploy.formats.model_file import save_model
from rtformer_deploy.nn.weights import save_weights
from rtformer_deploy.types import BuildOptions


def engine_at(path: Path) -> Path:
    save_engine(build(tiny_model(), tiny_spec(), "onnxruntime", BuildOptions()), path)
    return path


def test_a_model(tmp_path: Path) -> None:
    save_model(tiny_model("batch"), tmp_path / "m.onnx")
    found = describe(tmp_path / "m.onnx")
    assert found.kind == "onnx"
    assert found.facts["nodes"] == {"Conv": 3, "Relu": 2, "Identity": 1}
    assert found.facts["graph"]["opset"] == {"ai.onnx": 18}
    assert found.facts["graph"]["custom_nodes"] == 0
    assert found.facts["initializers"]["values_by_type"] == {"float32": 3 * 8 * 9 + 8 * 8 * 9 + 8 * 5 * 9}
    assert found.facts["tensors"]["input input"] == "float32 batchx3x64x96"
    assert found.facts["model"]["name"] == "tiny"
    assert json.loads(json.dumps(found.to_json()))["kind"] == "onnx"


def test_a_model_from_elsewhere(tmp_path: Path) -> None:
    model = tiny_model()
    model.metadata_props.clear()
    save_model(model, tmp_path / "m.onnx")
    assert "elsewhere" in describe(tmp_path / "m.onnx").facts["model"]["spec"]


def test_an_engine(tmp_path: Path) -> None:
    found = describe(engine_at(tmp_path / "e.plan"))
    assert found.kind == "engine"
    assert found.problem is None
    assert found.facts["file"]["sha256_check"] == "as built"
    assert found.facts["engine"]["backend"] == "onnxruntime"
    assert found.facts["engine"]["opens_here"] == "yes"
    assert found.facts["precision"]["asked"] == "fp32"
    assert json.loads(json.dumps(found.to_json()))["problem"] is None


def test_an_engine_of_a_newer_builder_is_shown(tmp_path: Path) -> None:
    path = engine_at(tmp_path / "e.plan")
    info = json.loads(sidecar(path).read_text())
    info["builder_version"] = "99.0.0"
    sidecar(path).write_text(json.dumps(info))
    assert describe(path).facts["engine"]["opens_here"].startswith("no: ")


def test_an_engine_with_a_changed_byte_is_shown_with_its_problem(tmp_path: Path) -> None:
    path = engine_at(tmp_path / "e.plan")
    path.write_bytes(path.read_bytes()[:-1])
    found = describe(path)
    assert isinstance(found.problem, EngineError)
    assert found.facts["file"]["sha256_check"].startswith("differs")


def test_a_plan_without_its_sidecar(tmp_path: Path) -> None:
    path = engine_at(tmp_path / "e.plan")
    sidecar(path).unlink()
    with pytest.raises(EngineError, match="beside it"):
        describe(path)


def test_weights(tmp_path: Path) -> None:
    tensors: dict[str, NDArray[Any]] = {"a": np.zeros((2, 3), np.float32), "b": np.zeros(5, np.float16), "c": np.array(1, np.float32)}
    save_file(tensors, tmp_path / "w.safetensors", metadata={"recipe": "rtformer-slim-camvid", "spec": '{"size": [1, 2]}'})
    found = describe(tmp_path / "w.safetensors")
    assert found.kind == "weights"
    assert found.facts["weights"] == {"tensors": 3, "parameters": 12, "parameters_by_type": {"F32": 7, "F16": 5}}
    assert found.facts["metadata"] == {"recipe": "rtformer-slim-camvid", "spec": {"size": [1, 2]}}


@pytest.mark.parametrize("name", ["w.safetensors", "w.safetensors.xz"])
def test_weights_cut_short(tmp_path: Path, name: str) -> None:
    save_weights({"a": torch.arange(600.0).reshape(200, 3)}, tmp_path / name, {})
    assert describe(tmp_path / name).facts["weights"] == {"tensors": 1, "parameters": 600, "parameters_by_type": {"F32": 600}}
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[:-100])
    with pytest.raises(WeightsError, match="was cut short"):
        describe(tmp_path / name)


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "w.pdparams").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(WeightsError, match="import-weights"):
        describe(tmp_path / "w.pdparams")


@pytest.mark.parametrize("data", [b"", b"hello", b"\x00" * 100])
def test_a_file_that_is_none_of_them(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(ModelError):
        describe(tmp_path / "m.onnx")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="No such file"):
        describe(tmp_path / "m.onnx")
