"""A portable file in every command: the same ranges, engines and blocks as the file with functions; and where the time goes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from attention_model import attention_model
from click.testing import CliRunner, Result
from helpers import frames

from rtformer_deploy.cli import main
from rtformer_deploy.errors import BuildError
from rtformer_deploy.formats.engine_file import load_engine
from rtformer_deploy.formats.model_file import load_model, parse_model, save_model, serialize_model, weights_sha256
from rtformer_deploy.formats.ranges import load_ranges
from rtformer_deploy.graph.portable import write_out
from rtformer_deploy.pipeline import prepare_model, read_model
from rtformer_deploy.timing.profile import NO_MODULE
from rtformer_deploy.tuning.blocks import find_blocks
from rtformer_deploy.types import BuildOptions, PrecisionName, Ranges

Call = Callable[..., Result]
DEFAULT, PORTABLE = Path("default.onnx"), Path("portable.onnx")


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.chdir(tmp_path)
    save_model(attention_model(), DEFAULT)
    save_model(write_out(attention_model()), PORTABLE)
    Path("images").mkdir()
    for index, frame in enumerate(frames((48, 64), (60, 70))):
        cv2.imwrite(f"images/{index}.png", frame[..., ::-1])
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


def _done(result: Result) -> Result:
    assert result.exit_code == 0, result.output
    return result


def test_ranges_blocks_and_engines_are_those_of_the_file_with_functions(call: Call) -> None:
    for path in (DEFAULT, PORTABLE):
        _done(call("calibrate", path, "--images", "images", "--threads", 1, "-o", f"{path.stem}.json"))
    found = [load_ranges(Path(f"{path.stem}.json")) for path in (DEFAULT, PORTABLE)]
    assert found[0] == found[1]
    assert Path("default.json").read_bytes() == Path("portable.json").read_bytes()
    (model, spec), (plain, other) = read_model(DEFAULT), read_model(PORTABLE)
    assert spec == other
    assert weights_sha256(model, spec) == weights_sha256(plain, other)
    assert find_blocks(model, found[0]) == find_blocks(plain, found[1])
    for options in ([], ["--int8", "--ranges", "portable.json"]):
        plans = []
        for path in (DEFAULT, PORTABLE):
            _done(call("build-engine", path, "--backend", "onnxruntime", "--threads", 1, *options, "-o", f"{path.stem}.plan"))
            plans.append(load_engine(Path(f"{path.stem}.plan")))
        assert plans[0].plan == plans[1].plan
        assert plans[0].info.model_sha256 != plans[1].info.model_sha256
    _done(call("verify", PORTABLE, "default.plan", "images/0.png", "--max-flips", "5%"))


@pytest.mark.parametrize("backend", ["tensorrt", "openvino"])
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_every_builder_gets_the_same_graph_however_the_file_is_read(call: Call, backend: str, precision: PrecisionName) -> None:
    models = [read_model(DEFAULT)[0], read_model(PORTABLE)[0], load_model(PORTABLE)]
    names = [str(value.name) for value in models[0].graph.inputs] + [str(node.outputs[0].name) for node in models[0].graph]
    ranges = Ranges(dict.fromkeys(names, 1.0), "minmax", 1, "5" * 64, "attention")
    graphs = [serialize_model(prepare_model(model, backend, BuildOptions(precision=precision), ranges)) for model in models]
    assert graphs[0] == graphs[1] == graphs[2]


def test_plugins_need_the_nodes_and_say_so(call: Call) -> None:
    for model in (read_model(PORTABLE)[0], load_model(PORTABLE)):
        with pytest.raises(BuildError, match="--plugins are for the nodes of the domain rtformer") as error:
            prepare_model(model, "tensorrt", BuildOptions(plugins=True))
        assert "without --portable" in str(error.value)
    assert any(node.domain for node in prepare_model(read_model(DEFAULT)[0], "tensorrt", BuildOptions(plugins=True)).graph)


def test_inspect_says_which_kind_a_file_is(call: Call) -> None:
    forms = [json.loads(_done(call("inspect", path, "--json")).stdout)["graph"]["form"] for path in (DEFAULT, PORTABLE)]
    assert forms[0].startswith("with functions of rtformer")
    assert "--portable" in forms[0]
    assert forms[1] == "portable: plain operators alone, the attention is written out"


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_every_layer_has_an_owner(call: Call, backend: str) -> None:
    _done(call("build-engine", PORTABLE, "--backend", backend, "--threads", 1))
    _done(call("profile", "engine.plan", "--rounds", 1, "--threads", 1, "--json", "profile.json"))
    told = json.loads(Path("profile.json").read_text())
    blocks = {block["name"] for block in told["blocks"]}
    assert NO_MODULE not in blocks
    assert {"layer4.attn_l", "layer4.attn_h", "layer4.cross_kv", "head", "body"} <= blocks
    assert {"layer4.attn_h/MatMul", "head.conv"} <= {layer["name"] for layer in told["layers"]}


def test_a_file_that_was_changed_after_the_export_builds_as_it_stands_and_says_so(call: Call) -> None:
    model = load_model(PORTABLE)
    next(node for node in model.graph if node.name == "layer4.attn_l/Softmax").op_type = "LogSoftmax"
    save_model(model, PORTABLE)
    result = _done(call("build-engine", PORTABLE, "--backend", "onnxruntime", "--threads", 1))
    assert "1 of 3 attention operators were changed after the export" in result.output
    engine = load_engine(Path("engine.plan"))
    assert "LogSoftmax" in {node.op_type for node in parse_model(engine.plan).graph}
    assert engine.info.flips == 0
    assert np.isfinite(engine.info.flips)
