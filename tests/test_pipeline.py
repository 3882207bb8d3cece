"""What the pipeline composes beyond its rooms: precision that is completed when a plan is first opened."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import onnx
import pytest
from helpers import tiny_model, tiny_spec

from rtformer_deploy import pipeline
from rtformer_deploy.backends import build
from rtformer_deploy.errors import PrecisionError
from rtformer_deploy.files import sha256
from rtformer_deploy.formats.engine_file import load_info, save_engine, save_info
from rtformer_deploy.formats.model_file import file_sha256, load_model, save_model, serialize_model
from rtformer_deploy.types import BuildOptions, Engine, PrecisionFound

REQUESTED = PrecisionFound("fp16", "requested", {"fp16": 2})


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An engine whose precision could not be read where it was built; opening it finds what `found` says."""
    spec = tiny_spec()
    engine = build(tiny_model(), spec, "onnxruntime", BuildOptions())
    info = dataclasses.replace(engine.info, precision=REQUESTED)
    save_engine(Engine(engine.plan, info), tmp_path / "engine.plan")
    return tmp_path / "engine.plan"


def complete_as(monkeypatch: pytest.MonkeyPatch, found: PrecisionFound) -> None:
    def complete(engine: Engine, device: int = 0) -> Engine:
        return dataclasses.replace(engine, info=dataclasses.replace(engine.info, precision=found))

    monkeypatch.setattr(pipeline, "complete_precision", complete)


def test_the_first_open_completes_the_sidecar(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complete_as(monkeypatch, PrecisionFound("fp16", "verified", {"fp16": 2}))
    pipeline.open_any(plan).close()
    assert load_info(plan).precision.state == "verified"


def test_strict_refuses_a_mismatch_found_at_the_first_open(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complete_as(monkeypatch, PrecisionFound("fp16", "mismatch", {"fp32": 2}, "the engine has 2 compute layers in fp32"))
    with pytest.raises(PrecisionError, match="2 compute layers in fp32"):
        pipeline.open_any(plan, strict=True)
    pipeline.open_any(plan).close()
    info = load_info(plan)
    save_info(dataclasses.replace(info, options={**info.options, "strict": True}), plan)
    with pytest.raises(PrecisionError):
        pipeline.open_any(plan)


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
    assert pipeline.engine_of(path, threads=1).info.model_sha256 == given


def test_a_model_without_a_file_has_the_hash_of_the_one_it_is_saved_to(tmp_path: Path) -> None:
    model = tiny_model()
    made = pipeline.build_engine(model, tiny_spec(), "onnxruntime", BuildOptions(threads=1)).info.model_sha256
    save_model(model, tmp_path / "model.onnx")
    assert made == file_sha256(model) == sha256((tmp_path / "model.onnx").read_bytes())


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_stops_nothing(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complete_as(monkeypatch, PrecisionFound("fp16", "verified", {"fp16": 2}))
    plan.parent.chmod(0o500)
    try:
        pipeline.open_any(plan).close()
    finally:
        plan.parent.chmod(0o700)
    assert load_info(plan).precision.state == "requested"
