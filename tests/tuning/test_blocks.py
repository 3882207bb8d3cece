"""Blocks of the real network, and mixes of three precisions of it as TensorRT gets them."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from exports import exported

from rtformer_deploy.errors import ModelError
from rtformer_deploy.formats.model_file import serialize_model
from rtformer_deploy.graph.edit import clone
from rtformer_deploy.graph.fp16 import to_fp16
from rtformer_deploy.graph.functions import inline_functions
from rtformer_deploy.graph.quantizable import quantizable
from rtformer_deploy.tuning.blocks import REST, find_blocks, globs
from rtformer_deploy.tuning.measure import Workshop, alone, everything
from rtformer_deploy.types import Ranges


def ranges() -> Ranges:
    """One for every tensor."""
    names = [str(value.name) for node in exported().model.graph for value in node.outputs]
    return Ranges(dict.fromkeys([*names, "input"], 1.0), "minmax", 1, exported().spec.sha256 or "", "x")


def test_every_quantised_convolution_is_in_one_block() -> None:
    model = exported().model
    blocks = find_blocks(model, ranges())
    counts = Counter(name for block in blocks for name in block.convolutions)
    assert counts == Counter(node.name for node in model.graph if quantizable(node, model))
    operators = Counter(name for block in blocks for name in block.operators)
    assert operators == Counter(node.name for node in model.graph if node.domain == "")
    assert sum(block.work for block in blocks) == pytest.approx(1)
    names = [block.name for block in blocks]
    assert {"layer1.0", "layer4.mlp_h", "spp", "seghead"} <= set(names)
    assert names[-1] == REST
    assert len(names) < 25
    first = next(block for block in blocks if block.name == "layer1.0")
    assert first.convolutions == ("layer1.0.bn1", "layer1.0.bn2")
    assert set(first.operators) >= {"layer1.0.bn1", "layer1.0/Relu", "layer1.0.bn2", "layer1.0/Add"}


def test_convolutions_without_names_are_refused() -> None:
    model = clone(exported().model)
    next(node for node in model.graph if node.name == "layer1.0.bn1").name = ""
    with pytest.raises(ModelError, match="1 convolutions of the model have no name"):
        find_blocks(model, ranges())


def test_a_mix_of_blocks_becomes_one_of_operators() -> None:
    made = exported()
    blocks = find_blocks(made.model, ranges())
    dataset = SimpleNamespace()
    on_cpu = Workshop(made.model, made.spec, "openvino", ranges(), blocks, dataset)  # type: ignore[arg-type]
    on_gpu = Workshop(made.model, made.spec, "tensorrt", ranges(), blocks, dataset)  # type: ignore[arg-type]
    levels = everything(blocks, "int8", "fp16") | {"layer1.0": "fp16", "seghead": "fp32"}
    mix = on_gpu.by_operator(levels)
    assert (mix.precision, set(mix.exclude)) == ("int8", {"layer1.0.bn1", "layer1.0.bn2", "seghead.bn2"})
    assert {"seghead.conv2", "seghead.bn2"} <= set(mix.fp32)
    assert not any(name.startswith("layer1.0") for name in mix.fp32)
    assert on_gpu.by_operator(everything(blocks, "fp16", "fp16")).precision == "fp16"
    assert on_gpu.by_operator(everything(blocks, "fp32", "fp32")).fp32 == ()
    one = on_cpu.by_operator(alone(blocks, "seghead", "int8", "fp32"))
    assert (one.precision, one.fp32) == ("int8", ())
    assert len(one.exclude) == sum(len(block.convolutions) for block in blocks) - 1


def run(model: ir.Model, image: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(serialize_model(inline_functions(clone(model))), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"input": image})[0])


def test_operators_named_fp32_compute_and_hand_on_fp32() -> None:
    model = exported().model
    image = np.random.default_rng(0).normal(size=(1, 3, 128, 256)).astype(np.float32)
    exact = run(model, image)
    plain = to_fp16(clone(model))
    named = [str(node.name) for node in model.graph if node.domain == ""]
    mostly = to_fp16(clone(model), globs(named))
    some = to_fp16(clone(model), ["conv1.*", "layer1.*"])
    error = [float(np.square(run(each, image) - exact).mean()) for each in (plain, some, mostly)]
    assert error[2] < 0.1 * error[0]
    assert error[1] <= 1.5 * error[0]
    kinds = {node.name: node.outputs[0].dtype for node in some.graph}
    assert kinds["conv1.1"] == kinds["layer1.1.bn2"] == ir.DataType.FLOAT
    assert kinds["layer2.0.bn1"] == ir.DataType.FLOAT16
    casts = [node.inputs[0] for node in some.graph if node.op_type == "Cast"]
    inside = [value for value in casts if value is not None and "layer1.0" in str(value.name)]
    assert inside == []  # neighbours in FP32 are not rounded between them
    first = next(node for node in some.graph if node.name == "conv1.1")
    assert first.inputs[0] is some.graph.inputs[0]
    with pytest.raises(ModelError, match="matches no node"):
        to_fp16(clone(model), ["nowhere"])
    with pytest.raises(ModelError, match="CrossResolutionAttention"):
        to_fp16(clone(model), ["layer4.attn_h*"])
