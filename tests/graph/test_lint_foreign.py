"""The lint on models that other tools quantised, and what build-engine makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from elsewhere_models import CHANNELS, CLASSES, Maker, error, exact, foreign, image
from onnx import numpy_helper

from rtformer_deploy.commands.inspect import describe
from rtformer_deploy.errors import ModelError
from rtformer_deploy.formats.model_file import serialize_model
from rtformer_deploy.graph.lint import lint
from rtformer_deploy.graph.notes import notes_of
from rtformer_deploy.pipeline import prepare_model
from rtformer_deploy.types import Backend, BuildOptions, Ranges


def quantised(axis: int = 0, levels: type[np.integer[Any]] = np.int8, bias: bool = False, table: bool = False) -> onnx.ModelProto:
    """A convolution between Q/DQ, its weights with scales along `axis`; with an int32 bias or a Gather by a table of indices."""
    make = Maker()
    last = make.features()
    make.constant("scale", np.float32(0.02))
    make.constant("zero", np.array(0, levels))
    make.add("QuantizeLinear", [last, "scale", "zero"], "q")
    make.add("DequantizeLinear", ["q", "scale", "zero"], "dq")
    make.constant("w_int8", make.rng.integers(-127, 128, (CHANNELS, CHANNELS, 3, 3)).astype(np.int8))
    make.constant("w_scale", np.logspace(-4, -1.5, CHANNELS).astype(np.float32))
    make.add("DequantizeLinear", ["w_int8", "w_scale", make.constant("w_zero", np.zeros(CHANNELS, np.int8))], "w", axis=axis)
    inputs = ["dq", "w"]
    if bias:
        make.constant("b_int32", np.arange(CHANNELS, dtype=np.int32))
        inputs.append(make.add("DequantizeLinear", ["b_int32", make.constant("b_scale", np.float32(0.01))], "b"))
    last = make.add("Conv", inputs, "middle", pads=[1] * 4)
    if table:
        make.add("Gather", [last, make.constant("table", np.array([[0, 1], [1, 2]], np.int64))], "gathered", axis=3)
        make.add("ReduceMax", ["gathered"], "pooled", axes=[4], keepdims=0)
        make.weight("w_last", CLASSES, CHANNELS, 1, 1)
        make.add("Conv", ["pooled", "w_last"], "scores")
        return make.model("scores", (1, CLASSES, 16, 2))
    return make.finish(last)


def told(proto: onnx.ModelProto) -> dict[str, str]:
    """Node -> what the lint says of it."""
    found: dict[str, str] = {}
    for finding in lint(foreign(proto)):
        found[finding.node] = f"{found.get(finding.node, '')}{finding.where}: {finding.why}\n"
    return found


def test_scales_along_the_input_channels() -> None:
    found = told(quantised(axis=1))
    assert "all: the weights have scales along axis 1, which is not that of the output channels" in found["/middle"]
    assert "axis" not in told(quantised())["/middle"]


def test_a_bias_in_int32() -> None:
    assert told(quantised(bias=True))["/b"].startswith("TensorRT 10/11, RTX: the bias of /middle is dequantised from int32")


def test_uint8_and_a_table_of_indices() -> None:
    found = told(quantised(levels=np.uint8, table=True))
    assert found["/q"] == "TensorRT 10/11, RTX: uint8 activations: the builder has int8 only.\n"
    assert found["/gathered"].startswith("OpenVINO: a Gather by a table of indices")


def test_fp16_scales_before_they_are_allowed() -> None:
    proto = quantised()
    for tensor in proto.graph.initializer:
        if tensor.name == "scale":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), "scale"))
    del proto.graph.value_info[:]
    findings = lint(foreign(proto))
    assert {finding.node for finding in findings if "its scale is FP16, which ONNX allows from opset 19 on" in finding.why} == {"/q", "/dq"}


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "tensorrt"])
def test_odd_weights_and_biases_become_numbers_with_the_same_result(backend: Backend) -> None:
    proto, feed = quantised(axis=1, bias=True), image()
    prepared = prepare_model(foreign(proto), backend, BuildOptions())
    assert error(exact(prepared, feed), exact(proto, feed)) < 1e-6
    assert "/w" not in {node.name for node in prepared.graph}
    notes = " ".join(notes_of(prepared))
    assert "scales along another axis" in notes
    assert ("biases in int32" in notes) is (backend == "tensorrt")
    assert "The model is quantised already" in notes


def test_what_is_sound_stays_as_it_is() -> None:
    proto = quantised()
    names = {node.name for node in prepare_model(foreign(proto), "onnxruntime", BuildOptions()).graph}
    assert {"/q", "/dq", "/w"} <= names


def test_tensorrt_gets_no_uint8() -> None:
    model = foreign(quantised(levels=np.uint8))
    with pytest.raises(ModelError, match=r"/q quantises to uint8, which TensorRT does not have"):
        prepare_model(model, "tensorrt-rtx", BuildOptions())
    assert serialize_model(prepare_model(model, "openvino", BuildOptions()))


def test_a_quantised_model_says_so_before_any_image_is_read(tmp_path: Path) -> None:
    path = tmp_path / "quantised.onnx"
    path.write_bytes(quantised().SerializeToString())
    assert describe(path).facts["graph"]["quantised"] == "2 DequantizeLinear, 1 QuantizeLinear"
    model = foreign(quantised())
    ranges = Ranges({"image": 1.0}, "minmax", 1, "0" * 64, "foreign")
    with pytest.raises(
        ModelError, match=r"quantised already \(2 DequantizeLinear, 1 QuantizeLinear\): --int8 is for models in floating point"
    ):
        prepare_model(model, "onnxruntime", BuildOptions(precision="int8"), ranges)
