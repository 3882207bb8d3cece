"""Converts a graph from FP32 to FP16. The model's inputs and outputs stay FP32, and GroupedDoubleNorm computes in FP32.

Run it before functions are inlined, while the `rtformer` nodes are still there. GroupedDoubleNorm divides a
softmax over the whole image: at 64x128 its mean is 1.2e-4, and FP16's normal range ends at 6.1e-5.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ..errors import ModelError
from .batchnorm import plain_batch_norms
from .edit import constant, initializer, label, lift_constants
from .functions import DOMAIN

#: (domain, name) of the operators that still compute in FP32.
FP32_OPERATORS = frozenset({(DOMAIN, "GroupedDoubleNorm")})
_LARGEST = float(np.finfo(np.float16).max)
#: Inputs that ONNX defines as FP32 whatever the data's type: Resize's roi and scales
_FP32_INPUTS = {"Resize": (1, 2)}


def to_fp16(model: ir.Model, fp32: Sequence[str] = (), operators: Collection[tuple[str, str]] = FP32_OPERATORS) -> ir.Model:
    """Makes an FP32 model compute in FP16, except for the nodes that match a glob in `fp32` and the `operators`; changes the model.

    Between two FP32 neighbours the values stay FP32. Raises ModelError if a weight is beyond FP16's range, if a glob in `fp32` matches
    nothing, or if it matches a node whose body other nodes share; the model is then half changed.
    """
    lift_constants(model)
    plain_batch_norms(model)
    nodes = list(model.graph)
    fenced = _fenced(nodes, fp32)
    halves: dict[str, ir.Value] = {}
    inputs = [value for value in model.graph.inputs if value.dtype == ir.DataType.FLOAT]
    outputs = [value for value in model.graph.outputs if value.dtype == ir.DataType.FLOAT]
    for node in nodes:
        if node in fenced or (node.domain, node.op_type) in operators:
            _fence(model.graph, node)
        else:
            _convert(model.graph, node, halves)
    for value in inputs:
        _cast_input(model.graph, value, fenced)
    for value in outputs:
        _cast_output(model.graph, value)
    for function in model.functions.values():
        if (function.domain, function.name) not in operators:
            _convert_constants(function)
    RemoveUnusedNodesPass()(model)
    return model


def _fenced(nodes: Sequence[ir.Node], globs: Sequence[str]) -> set[ir.Node]:
    """The nodes that stay in FP32 by name."""
    fenced = set()
    for glob in globs:
        named = {node for node in nodes if fnmatch.fnmatchcase(node.name or "", glob)}
        if not named:
            raise ModelError(f"fp32 = {glob} matches no node of the model.", "rtformer-deploy inspect names its operators.")
        fenced |= named
    shared = next((node for node in nodes if node in fenced and node.domain and (node.domain, node.op_type) not in FP32_OPERATORS), None)
    if shared is not None:
        raise ModelError(f"{shared.name} is a {shared.op_type}, whose body is in FP16 for all nodes of its kind: it cannot be FP32 alone.")
    return fenced


def _convert(graph: ir.Graph, node: ir.Node, halves: dict[str, ir.Value]) -> None:
    """Makes a node read FP16 weights and write FP16."""
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
    casts = 0
    for index, value in enumerate(node.inputs):
        if value is None or value.name in graph.initializers or value.dtype not in (ir.DataType.FLOAT, ir.DataType.FLOAT16):
            continue
        exact = _before_fence(value)
        if exact is not None:
            node.replace_input_with(index, exact)
        elif not (value.dtype == ir.DataType.FLOAT and value.is_graph_input()):
            cast = _cast(value, ir.DataType.FLOAT, f"{label(node)}/to_fp32" + (f"_{casts}" if casts else ""))
            casts += 1
            graph.insert_before(node, cast)
            node.replace_input_with(index, cast.outputs[0])
    for output in node.outputs:
        if output.dtype != ir.DataType.FLOAT:
            continue
        cast = _cast(output, ir.DataType.FLOAT16, f"{output.name}/to_fp16")
        _redirect(output, cast)
        graph.insert_after(node, cast)


def _before_fence(value: ir.Value) -> ir.Value | None:
    """The FP32 value that another node's cast turned into this FP16 value; None if there was none."""
    producer = value.producer()
    if producer is None or producer.op_type != "Cast" or value.dtype != ir.DataType.FLOAT16:
        return None
    source = producer.inputs[0]
    return source if source is not None and source.dtype == ir.DataType.FLOAT else None


def _cast_input(graph: ir.Graph, value: ir.Value, fenced: set[ir.Node]) -> None:
    cast = _cast(value, ir.DataType.FLOAT16, f"{value.name}/to_fp16")
    _redirect(value, cast, fenced)
    graph.insert_before(graph[0], cast)


def _cast_output(graph: ir.Graph, value: ir.Value) -> None:
    """Renames the last value to "<name>/fp16" and adds a cast with the old name, so that the output keeps its name and type."""
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


def _redirect(value: ir.Value, cast: ir.Node, exempt: set[ir.Node] | None = None) -> None:
    """Makes every reader of `value` read the cast instead, except for the cast itself and the nodes in `exempt`."""
    for reader, index in list(value.uses()):
        if reader is not cast and reader not in (exempt or ()):
            reader.replace_input_with(index, cast.outputs[0])


def _half(graph: ir.Graph, value: ir.Value, halves: dict[str, ir.Value]) -> ir.Value:
    """The FP16 copy of an initializer, made once."""
    name, array = value.name, constant(value)
    assert name is not None
    assert array is not None
    if name not in halves:
        largest = float(np.abs(array).max(initial=0.0))
        if not largest <= _LARGEST:  # NaN fails this too
            raise ModelError(f"The weight {name} holds {largest:g}, which FP16 cannot.", "Build with --fp32.")
        halves[name] = initializer(graph, f"{name}/fp16", array.astype(np.float16))
    return halves[name]


def _convert_constants(function: ir.Function) -> None:
    """Adds a cast after each float constant in a function's body. The constant itself may be an attribute of the node."""
    for node in list(function):
        if node.op_type == "Constant" and "value_float" in node.attributes:
            cast = _cast(node.outputs[0], ir.DataType.FLOAT16, f"{node.outputs[0].name}_fp16")
            _redirect(node.outputs[0], cast)
            function.insert_after(node, cast)
