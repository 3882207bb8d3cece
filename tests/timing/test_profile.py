"""`profile`: every layer that ran is there, times add up, files are whole. No test asks how fast."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner, Result
from helpers import tiny_model, tiny_spec
from tensorrt_plans import make_engine

from rtformer_deploy.backends import build
from rtformer_deploy.backends.onnxruntime.layers import read_events
from rtformer_deploy.backends.openvino.layers import split_kernel
from rtformer_deploy.cli import main
from rtformer_deploy.commands.profile import profile_path
from rtformer_deploy.errors import EngineError, ModelError, UsageError
from rtformer_deploy.files import sha256
from rtformer_deploy.formats.engine_file import save_engine
from rtformer_deploy.formats.model_file import save_model
from rtformer_deploy.runtime.layer_times import LayerTime
from rtformer_deploy.timing.profile import LAYOUT, NO_MODULE, Profile, block_of, profile_engine
from rtformer_deploy.types import Backend, BuildOptions

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_model(tiny_model(), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def make_plan(folder: Path, backend: Backend) -> Path:
    save_engine(build(tiny_model(), tiny_spec(), backend, BuildOptions()), folder / "engine.plan")
    return folder / "engine.plan"


def layer(name: str, ms: float = 1.0, kind: str = "Convolution") -> LayerTime:
    return LayerTime(name, kind, "kernel", "fp32", (ms, ms, ms))


def made(*layers: LayerTime) -> Profile:
    return Profile("tiny", "openvino", (64, 96), 1, 3, layers, 2.5)


def convolutions(layers: tuple[LayerTime, ...]) -> list[LayerTime]:
    return [layer for layer in layers if layer.kind.startswith("Conv")]


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_every_compute_layer_of_a_plan_is_there(tmp_path: Path, backend: Backend) -> None:
    profile = profile_path(make_plan(tmp_path, backend), rounds=3, threads=1)
    assert (profile.backend, profile.size, profile.batch, profile.rounds) == (backend, (64, 96), 1, 3)
    assert len(convolutions(profile.layers)) == 3
    assert {layer.precision for layer in convolutions(profile.layers)} == {"fp32"}
    assert all(len(layer.runs_ms) == 3 and min(layer.runs_ms) >= 0 for layer in profile.layers)
    assert profile.layers_ms > 0
    assert profile.whole_ms > 0


def test_an_onnx_model_is_profiled_in_onnx_runtime(model: Path, tmp_path: Path) -> None:
    profile = profile_path(model, rounds=2)
    assert profile.backend == "onnxruntime"
    assert len(convolutions(profile.layers)) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_the_smallest_batch_is_run(tmp_path: Path, backend: Backend) -> None:
    engine = build(tiny_model("batch"), tiny_spec("batch"), backend, BuildOptions(batch=(2, 2, 4)))
    save_engine(engine, tmp_path / "engine.plan")
    assert profile_path(tmp_path / "engine.plan", rounds=1).batch == 2


def test_sums_shares_and_blocks_agree() -> None:
    profile = made(layer("layer1.0.bn1", 1), layer("layer1.0/Add", 2), layer("conv", 4), layer("a_abcd_b", 0.5, "Reorder"))
    assert profile.layers_ms == 7.5
    assert [layer.name for layer in profile.top(2)] == ["conv", "layer1.0/Add"]
    assert [(block.name, block.layers, block.ms) for block in profile.blocks()] == [
        (NO_MODULE, 1, 4),
        ("layer1.0", 2, 3),
        (LAYOUT, 1, 0.5),
    ]
    told = profile.to_json()
    assert sum(layer["share"] for layer in told["layers"]) == pytest.approx(1)
    assert sum(block["ms"] for block in told["blocks"]) == told["layers_ms"]
    assert profile.summary() == "The layers sum to 7.50 ms; the engine alone, without profiling, takes 2.50 ms."


def test_the_median_is_a_layers_time() -> None:
    assert LayerTime("a", "Conv", "", "", (1.0, 9.0, 2.0)).ms == 2.0
    assert made(layer("a", 0)).share(0) == 0


@pytest.mark.parametrize(
    ("name", "kind", "block"),
    [("layer4.mlp_h.conv1", "Conv", "layer4.mlp_h"), ("x.y", "ReorderInput", LAYOUT), ("r", "Reformat", LAYOUT), ("n", "Add", NO_MODULE)],
)
def test_a_layers_block(name: str, kind: str, block: str) -> None:
    assert block_of(layer(name, kind=kind)) == block


def test_a_layer_that_a_library_made_belongs_to_the_node_it_was_made_for() -> None:
    assert block_of(replace(layer("MaxPool_7671"), node="layer4.down.0")) == "layer4.down"
    assert block_of(replace(layer("__myl_Fc_0"), node="layer4.attn_h/MatMul")) == "layer4.attn_h"
    assert block_of(replace(layer("Conv_3"), node="Conv_3")) == NO_MODULE


@pytest.mark.parametrize(("arch", "block"), [("rtformer", "relu"), ("unknown", NO_MODULE)])
def test_a_node_of_one_part_is_a_module_only_in_what_export_named(monkeypatch: pytest.MonkeyPatch, arch: str, block: str) -> None:
    found = (replace(layer("relu"), node="relu"), layer("made_up"))
    monkeypatch.setattr("rtformer_deploy.timing.profile.layer_times", lambda *_, **__: found)
    monkeypatch.setattr("rtformer_deploy.timing.profile._without_profiling", lambda *_: (np.zeros((1, 3, 8, 8), np.float32), 1.0))
    spec = replace(tiny_spec(), arch={"name": arch})
    engine = build(tiny_model(), tiny_spec(), "onnxruntime", BuildOptions())
    profile = profile_engine(replace(engine, info=replace(engine.info, spec=spec)), rounds=1)
    assert [block_of(each) for each in profile.layers] == [block, NO_MODULE]


@pytest.mark.parametrize(
    ("text", "parts"),
    [("brgconv_avx512_1x1_f32", ("brgconv_avx512_1x1", "fp32")), ("jit_avx2_I8", ("jit_avx2", "int8")), ("unknown_f32", ("", "fp32"))],
)
def test_openvinos_kernels_end_in_their_precision(text: str, parts: tuple[str, str]) -> None:
    assert split_kernel(text) == parts


def _event(name: str, start: int, ms: float, index: int = 0) -> dict[str, Any]:
    notes = {"op_name": "Conv", "node_index": str(index), "input_type_shape": [{"float": [1]}]}
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": start, "dur": 1000 * ms, "args": notes}


def test_onnx_runtimes_events_fall_into_their_runs() -> None:
    runs = [{"cat": "Session", "name": "model_run", "ts": start, "dur": 90} for start in (0, 100, 200)]
    events = [*runs, *(_event("a/GemmFusion//ScaleFusion/", start, ms) for start, ms in ((5, 7), (105, 1), (110, 2), (205, 4)))]
    events += [_event("a_nchwc", start, 3, 1) for start in (20, 120, 220)]
    layers = read_events(events, 2)
    assert [(layer.name, layer.kernel, layer.runs_ms) for layer in layers] == [("a", "", (3.0, 4.0)), ("a", "nchwc", (3.0, 3.0))]
    with pytest.raises(EngineError, match="3 runs instead of 4"):
        read_events(events, 4)


def test_the_command_prints_tables_of_80_columns_and_writes_whole_files(run: Run, model: Path, tmp_path: Path) -> None:
    result = run("profile", model, "--rounds", 2, "--top", 2, "--json", "out.json", "--svg", "out.svg")
    assert result.exit_code == 0, result.output
    assert "By block" in result.output
    assert "the engine alone, without profiling, takes" in result.output
    told = json.loads((tmp_path / "out.json").read_text())
    assert f"{len(told['layers']) - 2} more" in result.output
    assert max(len(line) for line in result.output.splitlines()) <= 80
    picture = ElementTree.parse(tmp_path / "out.svg").getroot()
    assert len({title.text for title in picture.iter("{http://www.w3.org/2000/svg}title")}) == 2


def test_a_long_name_fits_the_table(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = LayerTime("layer4." + "x" * 90, "AVeryLongKindOfLayerIndeed", "brgconv_avx512_vnni", "int8", (1.0,))
    monkeypatch.setattr("rtformer_deploy.commands.profile.profile_path", lambda *_, **__: made(long))
    result = run("profile", model)
    layers = result.output.split("By block")[0].strip().splitlines()
    assert [len(line) for line in layers[1:]] == [80, 80, 80], "a row does not fill one line"
    assert layers[3].startswith("layer4.")
    assert "..." in layers[3]


def test_an_unwritable_output_is_refused_before_anything_runs(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtformer_deploy.commands.profile.profile_path", lambda *_, **__: pytest.fail("it ran"))
    result = run("profile", model, "--svg", "nowhere/out.svg")
    assert result.exit_code == 1
    assert "nowhere" in result.output


def test_what_cannot_be_profiled_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    for name in ("bad.onnx", "missing.plan"):
        result = run("profile", name, "--json", "out.json")
        assert result.exit_code == 1
        assert result.output.startswith("Error: ")
    assert not (tmp_path / "out.json").exists()
    with pytest.raises(ModelError, match="weights"):
        profile_path(tmp_path / "model.safetensors")
    with pytest.raises(UsageError, match="rounds"):
        profile_engine(build(tiny_model(), tiny_spec(), "onnxruntime", BuildOptions()), rounds=0)


def test_a_tensorrt_plan_where_there_is_no_gpu(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine(plan_sha256=sha256(b"plan"))
    save_engine(engine, tmp_path / "engine.plan")
    monkeypatch.setattr("rtformer_deploy.nvidia.driver.gpus", lambda: ())
    monkeypatch.setattr("rtformer_deploy.backends.tensorrt.plan.gpus", lambda: ())
    result = run("profile", "engine.plan")
    assert result.exit_code == 1
    assert "needs an NVIDIA GPU" in result.output
