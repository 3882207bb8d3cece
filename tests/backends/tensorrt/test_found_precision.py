"""Precision read from the engine inspector's JSON, in the shapes that TensorRT 10, 11 and RTX give it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rtformer_deploy.backends.tensorrt.found_precision import LayerFacts, layer_facts, layer_precisions
from rtformer_deploy.errors import EngineError

FORMATS = [
    ("Channel major FP16 format where channel % 2 == 0", "fp16"),
    ("Channel major FP16 format where channel % 8 == 0", "fp16"),
    ("Row major linear FP16 format", "fp16"),
    ("FP16", "fp16"),
    ("Half", "fp16"),
    ("Row major linear FP32", "fp32"),
    ("Float", "fp32"),
    ("Thirty-two wide channel vectorized row major Int8 format.", "int8"),
    ("Int8", "int8"),
    ("BFloat16", "bf16"),
    ("Row major linear BF16 format", "bf16"),
    ("FP8", "fp8"),
    ("FP8 E4M3", "fp8"),
]


def layer(kind: str, *inputs: str, **more: Any) -> dict[str, Any]:
    tensors = [{"Name": f"x{index}", "Dimensions": [1, 64, 64, 128], "Format/Datatype": text} for index, text in enumerate(inputs)]
    return {"Name": f"[{kind}] a + b", "LayerType": kind, "Inputs": tensors, "Outputs": [], **more}


def inspector(*layers: Any, ends: str = "Bindings") -> str:
    return json.dumps({"Layers": layers, ends: ["input", "logits"]})


@pytest.mark.parametrize("ends", ["Bindings", "I/O Tensors"])
def test_compute_layers_are_counted_by_their_inputs_in_10_and_11(ends: str) -> None:
    text = inspector(
        layer("Reformat", "Row major linear FP32"),
        layer("CaskConvolution", "Channel major FP16 format where channel % 8 == 0", ParameterType="Convolution"),
        layer("conv", "Half"),
        layer("gemm", "Half", "Half"),
        layer("CaskGemmMatrixMultiply", "Row major linear FP32"),
        layer("kgen", "Float"),
        layer("CaskConvolution", "Int8"),
        ends=ends,
    )
    assert layer_precisions(text) == {"fp16": 3, "fp32": 1, "int8": 1}


@pytest.mark.parametrize(("text", "name"), FORMATS)
def test_each_way_of_naming_a_type(text: str, name: str) -> None:
    assert layer_precisions(inspector(layer("CaskConvolution", text))) == {name: 1}


@pytest.mark.parametrize("text", ["UInt8", "Int32", "Int64", "Bool", "Unknown format", "N/A due to dynamic shapes"])
def test_what_is_no_compute_type_is_not_counted(text: str) -> None:
    assert layer_precisions(inspector(layer("CaskConvolution", text))) == {}
    assert layer_precisions(inspector(layer("CaskConvolution", text, "Half"))) == {"fp16": 1}


def test_weights_speak_where_no_input_does() -> None:
    silent = layer("CaskConvolution", "Unknown format", Weights={"Type": "Half", "Count": 64})
    assert layer_precisions(inspector(silent)) == {"fp16": 1}
    told = layer("CaskConvolution", "Float", Weights={"Type": "Half", "Count": 64})
    assert layer_precisions(inspector(told)) == {"fp32": 1}


def test_fused_layers_count_where_there_are_no_others() -> None:
    text = inspector(
        layer("kgen", "Half"), layer("myelin", "Half"), layer("Reformat", "Float"), layer("Constant"), layer("shape_call", "Float")
    )
    assert layer_precisions(text) == {"fp16": 2}


def test_a_reformat_of_a_convolution_is_no_convolution() -> None:
    text = inspector(layer("Reformat", "Float", ParameterType="Convolution"), layer("CaskConvolution", "Half"))
    assert layer_precisions(text) == {"fp16": 1}


def test_names_alone_tell_nothing() -> None:
    text = inspector("conv1 + relu1", "Reformatting CopyNode for Input Tensor 0 to conv1 + relu1")
    assert layer_precisions(text) == {}


@pytest.mark.parametrize("text", ["", "Layers:\n conv1", "[]", '{"Bindings": []}', '{"Layers": null}', "null"])
def test_what_is_no_inspector_json_is_an_error(text: str) -> None:
    with pytest.raises(EngineError, match="no layers that can be read"):
        layer_precisions(text)


def test_a_layer_names_the_first_node_that_it_was_made_of() -> None:
    nodes = "[ONNX Layer: layer4.attn_h/MatMul]\x1f[ONNX Layer: layer4.attn_h/Softmax]"
    facts = layer_facts(inspector(layer("gemm", "Half", Metadata=nodes), {"Name": "other"}))
    assert facts["[gemm] a + b"] == LayerFacts("gemm", "fp16", "layer4.attn_h/MatMul")
    assert facts["other"] == LayerFacts()
