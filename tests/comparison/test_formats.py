"""The formats of a model: what each is made of, why one cannot be made or run, and what a person reads about it."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import frames, hide, tiny_model, tiny_spec
from rich.console import Console
from small_training import small_recipe, write_dataset

from rtformer_deploy.backends import BACKENDS
from rtformer_deploy.backends.onnxruntime.providers import PROVIDERS
from rtformer_deploy.cli.show import table
from rtformer_deploy.comparison import making
from rtformer_deploy.comparison.contestant import AsNetwork, Checked, Contestant
from rtformer_deploy.comparison.figures import figures
from rtformer_deploy.comparison.format_rows import FormatRow, points, precision_text, tables
from rtformer_deploy.comparison.formats import FORMATS, REFERENCE_FORMAT, Format
from rtformer_deploy.comparison.making import Made, Maker
from rtformer_deploy.comparison.records import Journal
from rtformer_deploy.comparison.worker import open_contestant
from rtformer_deploy.errors import CalibrationError
from rtformer_deploy.export.weights_choice import network_in
from rtformer_deploy.formats.engine_file import load_engine
from rtformer_deploy.formats.weights_file import weights_metadata
from rtformer_deploy.nn import build_network
from rtformer_deploy.nn.weights import save_weights
from rtformer_deploy.types import ModelSpec, PrecisionFound, no_progress

BY_NAME = {each.name: each for each in FORMATS}


NO_RANGES = CalibrationError("INT8 needs ranges.", "Give --ranges FILE.")


def maker(folder: Path, spec: ModelSpec | None = None, weights: Path | None = None) -> Maker:
    journal = Journal(folder / "state.jsonl", {}, resume=True)
    return Maker(tiny_model(), spec or tiny_spec(), folder, NO_RANGES, journal, weights, threads=1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network's weights, which say what they are."""
    folder = tmp_path_factory.mktemp("weights")
    recipe = small_recipe(write_dataset(folder / "data", frames=1))
    torch.manual_seed(0)
    state = build_network(recipe.arch, 3, aux=False).state_dict()
    save_weights(
        {name: value for name, value in state.items() if value.is_floating_point()}, folder / "w.safetensors", weights_metadata(recipe)
    )
    return folder / "w.safetensors"


def test_every_backend_and_provider_is_a_format_in_each_of_its_precisions() -> None:
    assert len(BY_NAME) == len(FORMATS)
    assert {(each.backend, each.precision) for each in FORMATS if each.backend is not None and each.provider is None} == {
        (backend, precision) for backend in BACKENDS for precision in ("fp32", "fp16", "int8")
    }
    assert {each.provider for each in FORMATS if each.provider is not None} == set(PROVIDERS)
    assert REFERENCE_FORMAT == "ONNX Runtime FP32"
    assert len({each.file_name for each in FORMATS}) == len(FORMATS)


def test_an_engine_is_built_into_the_folder_with_the_precision_of_its_layers(tmp_path: Path) -> None:
    made = maker(tmp_path).make(BY_NAME["OpenVINO FP32"], no_progress)
    assert (made.status, made.reason) == ("done", None)
    assert made.precision is not None
    assert (made.precision.state, made.precision.layers) == ("verified", {"fp32": 3})
    engine = load_engine(tmp_path / "openvino-fp32.plan")
    assert made.size == len(engine.plan)
    assert made.contestant == Contestant("OpenVINO FP32", str(tmp_path / "openvino-fp32.plan"), threads=1)


def test_what_is_missing_is_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "tensorrt")
    monkeypatch.setitem(PROVIDERS, "openvino", replace(PROVIDERS["openvino"], module="no_such_module_here"))
    reasons = {name: maker(tmp_path).make(BY_NAME[name], no_progress) for name in ("OpenVINO INT8", "TensorRT FP16", "OpenVINO EP FP32")}
    assert {made.status for made in reasons.values()} == {"failed"}
    assert reasons["OpenVINO INT8"].reason == "INT8 needs ranges. Give --ranges FILE."
    assert str(reasons["TensorRT FP16"].reason).startswith("the package tensorrt is not installed. Run: pip install")
    assert "onnxruntime-ep-openvino is not installed" in str(reasons["OpenVINO EP FP32"].reason)
    assert all(made.contestant is None for made in reasons.values())


def test_an_engine_for_a_gpu_elsewhere_is_built_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "can_run_here", lambda engine: False)
    made = maker(tmp_path).make(BY_NAME["OpenVINO FP32"], no_progress)
    assert (made.status, made.contestant) == ("built, not run here", None)
    assert str(made.reason).startswith("there is no GPU here")
    assert (tmp_path / "openvino-fp32.plan").is_file()


def test_pytorch_needs_the_weights_of_the_model(tmp_path: Path, weights: Path) -> None:
    own = network_in(weights).spec(size=(32, 64))
    pytorch = BY_NAME["torch.compile"]

    def reason(spec: ModelSpec, file: Path | None) -> str:
        made = maker(tmp_path, spec, file).make(pytorch, no_progress)
        assert (made.status, made.contestant) == ("failed", None)
        return str(made.reason)

    assert "needs the weights of the model, and none come with small" in reason(own, None)
    assert "w.safetensors holds other weights than the model" in reason(replace(own, sha256="0" * 64), weights)
    assert "does not say which weights it holds" in reason(tiny_spec(), weights)
    made = maker(tmp_path, own, weights).make(pytorch, no_progress)
    assert made.contestant == Contestant("torch.compile", str(weights), 1, network=AsNetwork((32, 64), 1, compiled=True))
    assert made.precision is not None
    assert set(made.precision.layers) == {"fp32"}
    assert made.size == weights.stat().st_size


def test_weights_are_opened_at_the_size_of_the_model(weights: Path) -> None:
    with open_contestant(Contestant("PyTorch", str(weights), 1, network=AsNetwork((32, 64)))) as runner:
        assert runner.spec.size == (32, 64)
        frame = frames((32, 64))[0]
        assert np.array_equal(runner.run([frame])[0], runner.run([frame])[0])


def rows() -> list[FormatRow]:
    """Every format with the longest figures that a table is to hold."""
    from comparing import turn

    rounds = [{each.name: turn(1234.5 + number, 1500.0) for each in FORMATS} for number in range(2)]
    found = PrecisionFound("fp16", "mismatch", {"fp32": 78}, "FP16 is storage")
    return [
        FormatRow(
            Made(each, "done", size=123_456_789, precision=found), Checked({"sample": 0.5}), figures(rounds, each.name, REFERENCE_FORMAT)
        )
        for each in FORMATS
    ]


def printed(found: list[FormatRow]) -> str:
    text = io.StringIO()
    console = Console(file=text, width=80)
    for each in tables(found):
        console.print(table(each.title, each.columns, each.rows, right=each.right))
    return text.getvalue()


def test_the_tables_fit_80_columns_and_hold_every_format_twice() -> None:
    lines = printed(rows()).splitlines()
    assert max(map(len, lines)) <= 80
    for each in FORMATS:
        assert len([line for line in lines if line.startswith(f"{each.name} ")]) == 2, each.name


def test_formats_that_fail_for_one_reason_share_a_line() -> None:
    lacking = [FormatRow(Made(BY_NAME[f"TensorRT {each}"], "failed", "it is not installed.")) for each in ("FP32", "FP16", "INT8")]
    broken = FormatRow(Made(BY_NAME["PyTorch"], "done"), error="The process of PyTorch crashed (SIGSEGV).")
    lines = [" ".join(line.split()) for line in printed([broken, *lacking]).splitlines()]
    assert "TensorRT FP32, FP16, INT8 failed: it is not installed." in lines
    assert any("crashed (SIGSEGV)" in line for line in lines)
    assert not any("Speed" in line for line in lines)
    assert broken.to_json()["status"] == "failed"
    assert broken.to_json()["why"] == ["The process of PyTorch crashed (SIGSEGV)."]


def test_a_precision_that_was_asked_for_and_not_found_is_seen() -> None:
    assert precision_text(PrecisionFound("int8", "verified", {"fp32": 15, "int8": 45})) == "int8 45, fp32 15"
    assert precision_text(PrecisionFound("fp16", "mismatch", {"fp32": 57})) == "fp32 57, not fp16"
    assert precision_text(PrecisionFound("fp16", "requested")) == "fp16 asked for"
    assert precision_text(None) == "-"


def test_the_picture_holds_what_was_scored() -> None:
    scored = [replace(row, checked=Checked({}, miou=0.703)) for row in rows()[:2]]
    assert [(point.name, point.miou) for point in points([*scored, rows()[3]])] == [("PyTorch", 70.3), ("torch.compile", 70.3)]
    assert "70.30%" in printed(scored)


def test_a_format_of_its_own_is_its_own_file() -> None:
    assert Format("TensorRT-RTX EP FP16", "x").file_name == "tensorrt-rtx-ep-fp16.plan"
