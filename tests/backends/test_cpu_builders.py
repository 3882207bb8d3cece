"""The OpenVINO and ONNX Runtime builders: what is in the plan, what precision was found, and what is refused."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from helpers import CLASSES, StoppedError, stop, tiny_model, tiny_spec
from onnx import TensorProto, helper, numpy_helper

from rtformer_deploy.backends import build
from rtformer_deploy.backends.onnxruntime.build import store_fp16
from rtformer_deploy.errors import BuildError
from rtformer_deploy.files import sha256
from rtformer_deploy.formats.conversion import convert
from rtformer_deploy.formats.model_file import parse_model, read_spec, serialize_model
from rtformer_deploy.types import BuildOptions, Engine, EngineInfo, TensorSpec

ONE = BuildOptions(threads=1)


@pytest.fixture(params=["openvino", "onnxruntime"])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def with_options(**values: Any) -> BuildOptions:
    return dataclasses.replace(ONE, **values)


def test_an_engine_says_what_it_is(backend: str) -> None:
    model = tiny_model()
    engine = build(model, tiny_spec(), backend, ONE)
    info = engine.info
    assert info.backend == backend
    assert info.spec == tiny_spec()
    assert info.inputs == (TensorSpec("input", (1, 3, 64, 96), "float32"),)
    assert info.outputs == (TensorSpec("logits", (1, CLASSES, 8, 12), "float32"),)
    assert info.batch == (1, 1, 1)
    assert info.gpu is None
    assert info.plan_sha256 == sha256(engine.plan)
    assert info.model_sha256 == sha256(serialize_model(model))
    assert info.builder_version[0].isdigit()
    assert convert(json.loads(json.dumps(info.to_json())), EngineInfo) == info


def test_fp32_is_verified_from_the_layers(backend: str) -> None:
    found = build(tiny_model(), tiny_spec(), backend, ONE).info.precision
    assert found.asked == "fp32"
    assert found.state == "verified"
    assert found.layers == {"fp32": 3}


def test_fp16_is_storage_and_says_so(backend: str) -> None:
    model = tiny_model()
    before = serialize_model(model)
    single = build(model, tiny_spec(), backend, ONE)
    half = build(model, tiny_spec(), backend, with_options(precision="fp16"))
    found = half.info.precision
    assert found.state == "mismatch"
    assert "on a CPU FP16 is storage; the layers run in fp32" in found.detail
    assert found.layers == {"fp32": 3}
    assert weight_bytes(half) * 2 == weight_bytes(single)
    assert serialize_model(model) == before


def weight_bytes(engine: Engine) -> int:
    """The bytes of the three convolutions' weights as the plan stores them."""
    if engine.info.backend == "openvino":
        with zipfile.ZipFile(io.BytesIO(engine.plan)) as plan:
            return plan.getinfo("model.bin").file_size
    return sum(numpy_helper.to_array(item).nbytes for item in onnx.load_model_from_string(engine.plan).graph.initializer)


def test_the_same_model_gives_the_same_plan(backend: str) -> None:
    assert build(tiny_model(), tiny_spec(), backend, ONE).plan == build(tiny_model(), tiny_spec(), backend, ONE).plan


def test_an_openvino_plan_is_one_stored_zip_of_the_ir() -> None:
    with zipfile.ZipFile(io.BytesIO(build(tiny_model(), tiny_spec(), "openvino", ONE).plan)) as plan:
        assert plan.namelist() == ["model.xml", "model.bin"]
        assert {item.compress_type for item in plan.infolist()} == {zipfile.ZIP_STORED}
        assert plan.read("model.xml").startswith(b"<?xml")


def test_an_onnxruntime_plan_is_the_model_itself() -> None:
    model = tiny_model()
    engine = build(model, tiny_spec(), "onnxruntime", ONE)
    assert engine.plan == serialize_model(model)
    assert read_spec(parse_model(engine.plan)) == tiny_spec()


def test_a_free_batch_is_bounded_by_the_options(backend: str) -> None:
    engine = build(tiny_model("batch"), tiny_spec("batch"), backend, with_options(batch=(1, 2, 4)))
    assert engine.info.batch == (1, 2, 4)
    assert engine.info.inputs[0].shape == ("batch", 3, 64, 96)
    assert engine.info.outputs[0].shape == ("batch", CLASSES, 8, 12)


def test_a_fixed_batch_is_the_models_own(backend: str) -> None:
    assert build(tiny_model(2), tiny_spec(2), backend, ONE).info.batch == (2, 2, 2)
    with pytest.raises(BuildError, match="has a fixed batch of 2; a batch of 1 to 4 cannot be built from it") as caught:
        build(tiny_model(2), tiny_spec(2), backend, with_options(batch=(1, 2, 4)))
    assert "--batch dynamic" in str(caught.value)


@pytest.mark.parametrize("batch", [(0, 1, 1), (2, 1, 4), (1, 4, 2)])
def test_a_batch_that_does_not_rise(backend: str, batch: tuple[int, int, int]) -> None:
    with pytest.raises(BuildError, match="does not rise from 1"):
        build(tiny_model("batch"), tiny_spec("batch"), backend, with_options(batch=batch))


@pytest.mark.parametrize(
    ("values", "flags"),
    [
        ({"workspace_mib": 512}, "--workspace"),
        ({"optimization_level": 3}, "--optimization-level"),
        ({"timing_cache": b"x"}, "--timing-cache"),
        ({"version_compatible": True, "hardware_compatible": True}, "--version-compatible, --hardware-compatible"),
        ({"plugins": True}, "--plugins"),
    ],
)
def test_options_of_a_gpu_builder_are_refused_by_name(backend: str, values: dict[str, Any], flags: str) -> None:
    name = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime"}[backend]
    with pytest.raises(BuildError, match=f"{name} has no {flags}: these are options of a GPU builder"):
        build(tiny_model(), tiny_spec(), backend, with_options(**values))


def strange_model(inputs: list[tuple[str, int, list[Any]]], op: str = "Relu", domain: str = "", output: str = "logits") -> ir.Model:
    node = helper.make_node(op, [inputs[0][0]], [output], domain=domain)
    graph = helper.make_graph(
        [node],
        "strange",
        [helper.make_tensor_value_info(*item) for item in inputs],
        [helper.make_tensor_value_info(output, *inputs[0][1:])],
    )
    opsets = [helper.make_opsetid("", 18), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return ir.serde.deserialize_model(helper.make_model(graph, opset_imports=opsets, ir_version=9))


SHAPE = [1, 3, 64, 96]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            strange_model([("input", TensorProto.UINT8, SHAPE)], "Identity"),
            r"takes input uint8 \(1, 3, 64, 96\); an engine takes one float input",
        ),
        (strange_model([("input", TensorProto.FLOAT, SHAPE), ("mask", TensorProto.FLOAT, SHAPE)]), "input float32 .* and mask float32"),
        (strange_model([("input", TensorProto.FLOAT, [1, 3, 32, 32])]), r"takes input float32 \(1, 3, 32, 32\); its ModelSpec says"),
        (strange_model([("input", TensorProto.FLOAT, [1, 3, "h", "w"])]), "its ModelSpec says"),
        (strange_model([("input", TensorProto.FLOAT, SHAPE)], output="scores"), "has no output 'logits'; it gives scores"),
    ],
    ids=["uint8", "two inputs", "another size", "free size", "another output"],
)
def test_a_model_with_other_tensors(backend: str, model: ir.Model, message: str) -> None:
    with pytest.raises(BuildError, match=message):
        build(model, tiny_spec(), backend, ONE)


def test_an_operator_that_the_backend_lacks(backend: str) -> None:
    model = strange_model([("input", TensorProto.FLOAT, SHAPE)], "Frobnicate", "elsewhere")
    name = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime"}[backend]
    with pytest.raises(BuildError, match=f"{name} refused the model: .*Frobnicate"):
        build(model, tiny_spec(), backend, ONE)


def test_progress_is_told_and_may_stop(backend: str) -> None:
    seen: list[tuple[str, int, int]] = []

    def progress(phase: str, done: int, total: int) -> None:
        seen.append((phase, done, total))

    build(tiny_model(), tiny_spec(), backend, ONE, progress)
    assert [done for _, done, _ in seen] == list(range(len(seen)))
    assert seen[-1][1] == seen[-1][2]
    with pytest.raises(StoppedError):
        build(tiny_model(), tiny_spec(), backend, ONE, stop)


def test_fp16_storage_keeps_what_fp16_cannot_hold() -> None:
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["x", "large"], ["y"]),
            helper.make_node("Add", ["y", "few"], ["z"]),
            helper.make_node("Add", ["z", "fits"], ["w"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [32])],
        [helper.make_tensor_value_info("w", TensorProto.FLOAT, [32])],
        [
            numpy_helper.from_array(np.full(32, 1e5, np.float32), "large"),
            numpy_helper.from_array(np.full(1, 1e-6, np.float32), "few"),
            numpy_helper.from_array(np.linspace(-1, 1, 32, dtype=np.float32), "fits"),
        ],
    )
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()
    stored = onnx.load_model_from_string(store_fp16(data))
    onnx.checker.check_model(stored, full_check=True)
    assert {item.name: item.data_type for item in stored.graph.initializer} == {
        "large": TensorProto.FLOAT,
        "few": TensorProto.FLOAT,
        "fits.fp16": TensorProto.FLOAT16,
    }
