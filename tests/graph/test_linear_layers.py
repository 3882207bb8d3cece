"""A transformer's graph: its linear layers are quantised, simplifying leaves its attention alone, tune chooses among its blocks."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxsim
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_parts import constant, run_model

from rtformer_deploy.backends.onnxruntime.build import layer_precisions
from rtformer_deploy.errors import ModelError
from rtformer_deploy.formats.model_file import parse_model, serialize_model
from rtformer_deploy.graph.edit import clone
from rtformer_deploy.graph.qdq import to_qdq
from rtformer_deploy.graph.quantizable import Placement
from rtformer_deploy.graph.simplify import simplify
from rtformer_deploy.tuning.blocks import REST, find_blocks
from rtformer_deploy.types import Ranges

TOKENS, CHANNELS, CLASSES = 24, 16, 5
LINEAR = ("q", "k", "v", "o")
BLOCKS = 2


@pytest.fixture(scope="module")
def model() -> ir.Model:
    """Blocks of attention between tokens (1, tokens, channels) with a linear classifier, as PyTorch's exporter writes them."""
    rng = np.random.default_rng(0)
    weights, nodes, x = [numpy_helper.from_array(np.array(0.25, np.float32), "scale")], [], "input"
    for index in range(BLOCKS):
        at = f"net.blocks.{index}"
        for name in LINEAR:
            weights.append(numpy_helper.from_array(rng.normal(0, 0.15, (CHANNELS, CHANNELS)).astype(np.float32), f"{at}.{name}.weight"))
            weights.append(numpy_helper.from_array(rng.normal(0, 0.15, CHANNELS).astype(np.float32), f"{at}.{name}.bias"))
        nodes += [node for name in LINEAR[:3] for node in _linear(x, f"{at}.{name}")]
        nodes += [
            helper.make_node("Transpose", [f"{at}.k"], [f"{at}/Transpose"], f"{at}/Transpose", perm=[0, 2, 1]),
            _node("MatMul", [f"{at}.q", f"{at}/Transpose"], f"{at}/MatMul"),
            _node("Mul", [f"{at}/MatMul", "scale"], f"{at}/Mul"),
            _node("Softmax", [f"{at}/Mul"], f"{at}/Softmax"),
            _node("MatMul", [f"{at}/Softmax", f"{at}.v"], f"{at}/MatMul_1"),
            *_linear(f"{at}/MatMul_1", f"{at}.o"),
            _node("Add", [f"{at}.o", x], f"{at}/Add"),
        ]
        x = f"{at}/Add"
    weights.append(numpy_helper.from_array(rng.normal(0, 0.15, (CHANNELS, CLASSES)).astype(np.float32), "head.weight"))
    nodes.append(helper.make_node("MatMul", [x, "head.weight"], ["logits"], "head"))
    sizes = {"input": CHANNELS, "logits": CLASSES}
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, TOKENS, size)) for name, size in sizes.items()]
    graph = helper.make_graph(nodes, "transformer", ends[:1], ends[1:], weights)
    proto = onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9))
    return parse_model(proto.SerializeToString())


def _linear(source: str, name: str) -> list[onnx.NodeProto]:
    return [_node("MatMul", [source, f"{name}.weight"], f"{name}/MatMul"), _node("Add", [f"{name}/MatMul", f"{name}.bias"], name)]


def _node(kind: str, inputs: list[str], name: str) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [name], name)


@pytest.fixture(scope="module")
def ranges(model: ir.Model) -> Ranges:
    names = ["input", *(str(node.outputs[0].name) for node in model.graph)]
    return Ranges(dict.fromkeys(names, 4.0), "minmax", 1, "", "transformer")


@pytest.mark.parametrize("placement", ["openvino", "onnxruntime", "tensorrt"])
def test_linear_layers_read_eight_bits_and_products_of_activations_do_not(model: ir.Model, ranges: Ranges, placement: Placement) -> None:
    made = to_qdq(clone(model), ranges, placement)
    weights = [node for node in made.graph if node.op_type == "DequantizeLinear" and node.inputs[0] in made.graph.initializers.values()]
    quantised = {reader.name for node in weights for reader, _ in node.outputs[0].uses()}
    assert quantised == {f"net.blocks.{index}.{name}/MatMul" for index in range(BLOCKS) for name in LINEAR}
    assert sum(node.op_type == "QuantizeLinear" for node in made.graph) == 2 * BLOCKS  # q, k and v read one copy; o has its own
    image = np.random.default_rng(1).uniform(-2, 2, (1, TOKENS, CHANNELS)).astype(np.float32)
    given, wanted = run_model(made, image), run_model(model, image)
    assert 0 < np.abs(given - wanted).max() < 0.05 * np.abs(wanted).max()


def test_onnx_runtime_computes_a_linear_layer_with_its_bias_in_eight_bits(model: ir.Model, ranges: Ranges) -> None:
    made = to_qdq(clone(model), ranges, "onnxruntime")
    assert layer_precisions(serialize_model(made), "input", (1, TOKENS, CHANNELS), 1) == {
        "int8": BLOCKS * len(LINEAR),
        "fp32": 2 * BLOCKS + 1,
    }


def test_a_linear_layer_has_a_scale_for_each_output_channel(model: ir.Model, ranges: Ranges) -> None:
    made = to_qdq(clone(model), ranges, "openvino", ["net.blocks.1*"])
    name = "net.blocks.0.q/MatMul"
    weights = constant(model.graph.initializers["net.blocks.0.q.weight"])
    scales, stored = (constant(made.graph.initializers[f"{name}/weight/{part}"]) for part in ("scale", "int8"))
    assert np.allclose(scales, np.abs(weights).max(0) / 127)
    assert np.abs(stored * scales - weights).max() <= scales.max() / 2 + 1e-7
    assert not any(initial.startswith("net.blocks.1.q/") for initial in made.graph.initializers)


def test_blocks_are_the_transformers_own(model: ir.Model, ranges: Ranges) -> None:
    blocks = {block.name: block for block in find_blocks(model, ranges)}
    assert list(blocks) == ["net.blocks.0", "net.blocks.1", REST]
    assert blocks["net.blocks.1"].convolutions == tuple(f"net.blocks.1.{name}/MatMul" for name in LINEAR)
    share = 4 * CHANNELS / (8 * CHANNELS + CLASSES)
    assert [block.work for block in blocks.values()] == pytest.approx([share, share, 1 - 2 * share])


def test_simplifying_leaves_attention_and_linear_layers_as_they_are(model: ir.Model) -> None:
    before = [node.name for node in model.graph]
    assert [node.name for node in simplify(clone(model)).graph] == before


def test_an_operator_that_not_every_builder_knows_is_refused(model: ir.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def fuse(proto: onnx.ModelProto, **_options: object) -> tuple[onnx.ModelProto, bool]:
        fused = onnx.ModelProto()
        fused.CopyFrom(proto)
        fused.graph.node[0].domain = "com.microsoft"
        return fused, True

    monkeypatch.setattr(onnxsim, "simplify", fuse)
    copy = clone(model)
    with pytest.raises(ModelError, match=r"operators of com\.microsoft"):
        simplify(copy)
    assert {node.domain for node in copy.graph} == {""}
