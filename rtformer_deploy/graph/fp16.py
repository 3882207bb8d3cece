"""FP32 to FP16, written into the graph: the model's inputs and outputs stay FP32, and GroupedDoubleNorm computes in FP32.

Works on the model before its functions are inlined, where the patterns still have their names. GroupedDoubleNorm divides a
softmax over the whole image: at 64x128 its mean is 1.2e-4, and FP16's normal range ends at 6.1e-5.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass, RemoveUnusedNodesPass

from ..errors import ModelError
from .batchnorm import plain_batch_norms
from .functions import DOMAIN

KEEP_FP32 = {(DOMAIN, "GroupedDoubleNorm")}
_LARGEST = float(np.finfo(np.float16).max)
#: inputs that ONNX defines as FP32 whatever the data's type: Resize's roi and scales
_FP32_INPUTS = {"Resize": (1, 2)}


def to_fp16(model: ir.Model, keep: Collection[tuple[str, str]] = KEEP_FP32) -> ir.Model:
    """An FP32 model -> a copy that computes in FP16, except the operators (domain, name) in `keep`.

    Raises ModelError where a weight is beyond FP16's range, naming it.
    """
    model = ir.serde.deserialize_model(ir.serde.serialize_model(model))
    LiftConstantsToInitializersPass(lift_all_constants=False, size_limit=0)(model)
    plain_batch_norms(model)
    nodes = list(model.graph)
    halves: dict[str, ir.Value] = {}
    inputs = [value for value in model.graph.inputs if value.dtype == ir.DataType.FLOAT]
    outputs = [value for value in model.graph.outputs if value.dtype == ir.DataType.FLOAT]
    for node in nodes:
        if (node.domain, node.op_type) in keep:
            _fence(model.graph, node)
        else:
            _convert(model.graph, node, halves)
    for value in inputs:
        _cast_input(model.graph, value)
    for value in outputs:
        _cast_output(model.graph, value)
    for function in model.functions.values():
        if (function.domain, function.name) not in keep:
            _convert_constants(function)
    RemoveUnusedNodesPass()(model)
    return model


def _convert(graph: ir.Graph, node: ir.Node, halves: dict[str, ir.Value]) -> None:
    """Makes one node read FP16 weights and write FP16."""
    for index, value in enumerate(node.inputs):
        if value is None or index in _FP32_INPUTS.get(node.op_type, ()):
            continue
        if value.name in graph.initializers and value.dtype == ir.DataType.FLOAT:
            node.replace_input_with(index, _half(graph, value, halves))
    if node.op_type == "Cast" and node.attributes["to"].as_int() == ir.DataType.FLOAT:
        node.attributes["to"] = ir.AttrInt64("to", ir.DataType.FLOAT16)
    for output in node.outputs:
        if output.dtype == ir.DataType.FLOAT:
            output.dtype = ir.DataType.FLOAT16


def _fence(graph: ir.Graph, node: ir.Node) -> None:
    """Puts casts around a node so that it reads and writes FP32 in an FP16 graph."""
    for index, value in enumerate(node.inputs):
        if value is not None and value.name not in graph.initializers and value.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16):
            cast = _cast(value, ir.DataType.FLOAT, f"{node.name}/to_fp32")
            graph.insert_before(node, cast)
            node.replace_input_with(index, cast.outputs[0])
    for output in node.outputs:
        cast = _cast(output, ir.DataType.FLOAT16, f"{node.name}/to_fp16")
        _redirect(output, cast)
        graph.insert_after(node, cast)


def _cast_input(graph: ir.Graph, value: ir.Value) -> None:
    cast = _cast(value, ir.DataType.FLOAT16, f"{value.name}/to_fp16")
    _redirect(value, cast)
    graph.insert_before(graph[0], cast)


def _cast_output(graph: ir.Graph, value: ir.Value) -> None:
    """The last value becomes "<name>/fp16" and a cast takes its name, so that the output stays what it was to readers."""
    name, producer = value.name, value.producer()
    assert name is not None
    assert producer is not None
    value.name = f"{name}/fp16"
    cast = _cast(value, ir.DataType.FLOAT, name)
    cast.outputs[0].shape = value.shape
    graph.insert_after(producer, cast)
    graph.outputs[list(graph.outputs).index(value)] = cast.outputs[0]


def _cast(value: ir.Value, dtype: ir.DataType, name: str) -> ir.Node:
    node = ir.node("Cast", [value], {"to": dtype}, name=name)
    node.outputs[0].name, node.outputs[0].dtype, node.outputs[0].shape = name, dtype, value.shape
    return node


def _redirect(value: ir.Value, cast: ir.Node) -> None:
    """Every reader of `value` but the cast reads the cast."""
    for reader, index in list(value.uses()):
        if reader is not cast:
            reader.replace_input_with(index, cast.outputs[0])


def _half(graph: ir.Graph, value: ir.Value, halves: dict[str, ir.Value]) -> ir.Value:
    """The FP16 twin of an initializer, made once."""
    name = value.name
    assert name is not None
    assert value.const_value is not None
    if name not in halves:
        array = value.const_value.numpy()
        largest = float(np.abs(array).max(initial=0.0))
        if not largest <= _LARGEST:  # NaN fails this too
            raise ModelError(f"The weight {name} holds {largest:g}, which FP16 cannot.", "Build with --fp32.")
        half = ir.tensor(array.astype(np.float16), name=f"{name}/fp16")
        twin = ir.Value(name=half.name, type=ir.TensorType(ir.DataType.FLOAT16), shape=value.shape, const_value=half)
        graph.register_initializer(twin)
        halves[name] = twin
    return halves[name]


def _convert_constants(function: ir.Function) -> None:
    """A float constant in a function's body is cast, since its value may be an attribute of the node."""
    for node in list(function):
        if node.op_type == "Constant" and "value_float" in node.attributes:
            cast = _cast(node.outputs[0], ir.DataType.FLOAT16, f"{node.outputs[0].name}_fp16")
            _redirect(node.outputs[0], cast)
            function.insert_after(node, cast)
