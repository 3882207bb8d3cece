"""A small network with every `rtformer` operator in it, named as an export is: what functions and portable files are tried on.

stem.0 - body.0 - body.1 - layer4.attn_l (GroupedDoubleNorm) - layer4.cross_kv (AdaptiveMaxPool) - layer4.attn_h - head
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import ShapeInferencePass

from rtformer_deploy.formats.model_file import parse_model, serialize_model, stamp_spec
from rtformer_deploy.graph.functions import DOMAIN, add_functions
from rtformer_deploy.types import ModelSpec, TensorSpec

SIZE = (48, 64)
_CLASSES = 5
_CHANNELS = 16


def attention_spec() -> ModelSpec:
    return ModelSpec(
        name="attention",
        arch={"name": "rtformer"},
        classes=tuple(f"class{index}" for index in range(_CLASSES)),
        palette=tuple((40 * index, 0, 0) for index in range(_CLASSES)),
        input=TensorSpec("input", (1, 3, *SIZE), "float32"),
        output=TensorSpec("logits", (1, _CLASSES, 6, 8), "float32"),
        sha256="5" * 64,
    )


def attention_model() -> ir.Model:
    """The network, stamped with its spec, with its operators' functions."""
    graph = _Graph()
    value = graph.conv("stem.0", graph.input, 3, _CHANNELS, 8)
    value = graph.node("stem/Relu", "Relu", value)
    value = graph.conv("body.0", value, _CHANNELS, _CHANNELS)
    body = graph.conv("body.1", value, _CHANNELS, _CHANNELS)
    value = graph.node("layer4.attn_l/GroupedDoubleNorm", "GroupedDoubleNorm", body, groups=2, group_size=_CHANNELS // 2)
    value = graph.node("layer4/Add", "Add", graph.conv("layer4.attn_l", value, _CHANNELS, _CHANNELS), body)
    bins = [graph.constant(name, bins) for name, bins in (("rows", np.arange(6).reshape(2, 3)), ("columns", np.arange(8).reshape(2, 4)))]
    pooled = graph.node("layer4.cross_kv.1", "AdaptiveMaxPool", value, *bins)
    tokens = graph.conv("layer4.cross_kv.2", pooled, _CHANNELS, 2 * _CHANNELS)
    tokens = graph.node("layer4/Reshape", "Reshape", tokens, graph.constant("flat", np.array([1, 2 * _CHANNELS, 4])))
    halves = [
        graph.node(f"layer4/Gather{end}", "Gather", tokens, graph.constant(f"half{end}", rows), axis=1) for end, rows in _HALVES.items()
    ]
    key = graph.node("layer4/Transpose", "Transpose", halves[0], perm=[0, 2, 1])
    value = graph.node("layer4.attn_h/CrossResolutionAttention", "CrossResolutionAttention", value, key, halves[1], scale=0.5)
    graph.conv("head.conv", value, _CHANNELS, _CLASSES, output="logits")
    return graph.model()


_HALVES = {"": np.arange(_CHANNELS), "_1": np.arange(_CHANNELS, 2 * _CHANNELS)}


class _Graph:
    def __init__(self) -> None:
        self._random = np.random.default_rng(0)
        self.input = ir.Value(name="input", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape((1, 3, *SIZE)))
        self._nodes: list[ir.Node] = []
        self._constants: list[ir.Value] = []

    def node(self, name: str, operator: str, *inputs: ir.Value, output: str | None = None, **attributes: object) -> ir.Value:
        domain = DOMAIN if operator in ("GroupedDoubleNorm", "AdaptiveMaxPool", "CrossResolutionAttention") else ""
        node = ir.node(operator, inputs, attributes, domain=domain, name=name)  # type: ignore[arg-type]
        node.outputs[0].name = output or name
        node.outputs[0].dtype = ir.DataType.FLOAT
        self._nodes.append(node)
        return node.outputs[0]

    def conv(self, name: str, data: ir.Value, inputs: int, outputs: int, stride: int = 1, output: str | None = None) -> ir.Value:
        weight = self._random.normal(0, np.sqrt(2 / (9 * inputs)), (outputs, inputs, 3, 3)).astype(np.float32)
        kernel = self.constant(f"{name}.weight", weight)
        return self.node(name, "Conv", data, kernel, output=output, pads=[1] * 4, strides=[stride] * 2, kernel_shape=[3, 3])

    def constant(self, name: str, array: NDArray[np.generic]) -> ir.Value:
        tensor = ir.tensor(array, name=name)
        self._constants.append(ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor))
        return self._constants[-1]

    def model(self) -> ir.Model:
        output = self._nodes[-1].outputs[0]
        output.shape = ir.Shape(attention_spec().output.shape)
        graph = ir.Graph([self.input], [output], nodes=self._nodes, initializers=self._constants, opset_imports={"": 20}, name="attention")
        model = add_functions(ir.Model(graph, ir_version=10))
        ShapeInferencePass()(model)
        stamp_spec(model, attention_spec())
        return parse_model(serialize_model(model))
