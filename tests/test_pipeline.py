"""What the pipeline composes beyond its rooms."""

from __future__ import annotations

from pathlib import Path

import onnx
from helpers import tiny_model, tiny_spec

from rtformer_deploy import opening, pipeline
from rtformer_deploy.files import sha256
from rtformer_deploy.formats.model_file import file_sha256, load_model, save_model, serialize_model
from rtformer_deploy.types import BuildOptions


def test_strict_at_the_build_travels_with_the_plan() -> None:
    spec = tiny_spec()
    engine = pipeline.build_engine(tiny_model(), spec, "onnxruntime", BuildOptions(), strict=True)
    assert engine.info.options["strict"] is True


def test_an_engine_names_the_file_that_its_model_came_from(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    last = onnx.ModelProto(producer_name="another writer")
    path.write_bytes(serialize_model(tiny_model()) + last.SerializeToString())  # a field that we would write further up
    model, spec, given = load_model(path), tiny_spec(), sha256(path.read_bytes())
    assert sha256(serialize_model(model)) != given
    assert file_sha256(model) == given
    for backend in ("openvino", "onnxruntime"):
        assert pipeline.build_engine(model, spec, backend, BuildOptions(threads=1)).info.model_sha256 == given
    assert opening.engine_of(path, threads=1).info.model_sha256 == given


def test_a_model_without_a_file_has_the_hash_of_the_one_it_is_saved_to(tmp_path: Path) -> None:
    model = tiny_model()
    made = pipeline.build_engine(model, tiny_spec(), "onnxruntime", BuildOptions(threads=1)).info.model_sha256
    save_model(model, tmp_path / "model.onnx")
    assert made == file_sha256(model) == sha256((tmp_path / "model.onnx").read_bytes())
