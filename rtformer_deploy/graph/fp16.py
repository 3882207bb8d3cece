"""Converts a graph from FP32 to FP16. The model's inputs and outputs stay FP32, and GroupedDoubleNorm computes in FP32.

Run it before functions are inlined, while the `rtformer` nodes are still there. GroupedDoubleNorm divides a
softmax over the whole image: at 64x128 its mean is 1.2e-4, and FP16's normal range ends at 6.1e-5.

A model from elsewhere holds more that FP16 cannot: see `fp16_choice`. Such nodes stay in FP32, with casts around them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ..errors import ModelError
from ..formats.tensor_types import infer_types
from .batchnorm import plain_batch_norms
from .bodies import bodies, inner_nodes
from .edit import constant, initializer, label, lift_constants
from .fp16_choice import FP32_OPERATORS, choose_fp32
from .fp16_constants import LARGEST
from .fp16_types import Pinned, everything, pinned
from .functions import DOMAIN
from .retype import retype_attributes

__all__ = ["FP32_OPERATORS", "to_fp16"]
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)


def to_fp16(
    model: ir.Model,
    fp32: Sequence[str] = (),
    operators: Collection[tuple[str, str]] = FP32_OPERATORS,
    probe: NDArray[np.float32] | None = None,
) -> ir.Model:
    """Makes an FP32 model compute in FP16, except for the nodes that match a glob in `fp32` and the `operators`; changes the model.

    With `probe`, an input (N, 3, H, W), the model runs once in FP32, and what FP16 could not hold of that run stays in FP32. Between two
    FP32 neighbours the values stay FP32. What was kept or clamped is in the model's notes. Raises ModelError if a glob in `fp32` matches
    nothing, or if it matches a node whose body other nodes share; the model is then half changed.
    """
    lift_constants(model, numbers=True)
    plain_batch_norms(model)
    if any(output.dtype is None for node in model.graph for output in node.outputs):
        infer_types(model)
    fenced = choose_fp32(model, fp32, operators, probe)
    opset = model.opset_imports.get("", 1)
    halves: dict[str, ir.Value] = {}
    held: set[tuple[ir.Node, int]] = set()
    inputs = [value for value in model.graph.inputs if value.dtype == ir.DataType.FLOAT]
    outputs = [value for value in model.graph.outputs if value.dtype == ir.DataType.FLOAT]
    for node in list(model.graph):
        _place(model.graph, node, everything(node) if node in fenced else _pinned(node, opset), halves, held)
    for value in inputs:
        _cast_input(model.graph, value, held)
    for value in outputs:
        if value.dtype == ir.DataType.FLOAT16:
            _cast_output(model.graph, value)
    for function in model.functions.values():
        if (function.domain, function.name) not in operators:
            _convert_constants(function)
    RemoveUnusedNodesPass()(model)
    return model


def _pinned(node: ir.Node, opset: int) -> Pinned:
    """What of a node that computes in FP16 stays FP32 all the same."""
    if node.domain == "":
        return pinned(node, opset)
    return Pinned() if node.domain == DOMAIN else everything(node)


def _place(graph: ir.Graph, node: ir.Node, pins: Pinned, halves: dict[str, ir.Value], held: set[tuple[ir.Node, int]]) -> None:
    """Makes a node read and write FP16, and FP32 where it is pinned; there casts join it to the FP16 graph around it.

    Adds to `held` what reads a graph's input as it is.
    """
    casts: dict[ir.Value, ir.Value] = {}
    for index, value in enumerate(node.inputs):
        if value is None:
            continue
        if index in pins.inputs:
            _hold(graph, node, node, index, casts, held)
        elif value.name in graph.initializers and value.dtype == ir.DataType.FLOAT:
            node.replace_input_with(index, _half(graph, value, halves))
    for reader in inner_nodes(node):
        for index in range(len(reader.inputs)):
            _hold(graph, node, reader, index, casts, held)
    for body in bodies(node):
        for index, value in enumerate(body.outputs):
            if _is_of(graph, value):
                body.outputs[index] = _exact(graph, node, value, casts)
    if len(pins.outputs) < len(node.outputs):
        retype_attributes(node, ir.DataType.FLOAT, ir.DataType.FLOAT16)
    for index, output in enumerate(node.outputs):
        if output.dtype != ir.DataType.FLOAT:
            continue
        if index not in pins.outputs:
            output.dtype = ir.DataType.FLOAT16
            continue
        cast = _cast(output, ir.DataType.FLOAT16, f"{output.name}/to_fp16")
        _redirect(output, cast)
        graph.insert_after(node, cast)


def _hold(
    graph: ir.Graph, node: ir.Node, reader: ir.Node, index: int, casts: dict[ir.Value, ir.Value], held: set[tuple[ir.Node, int]]
) -> None:
    """Makes `reader`, a node or one inside the body of `node`, read an FP32 value of the graph."""
    value = reader.inputs[index]
    if value is None or value.dtype not in _FLOATS or not _is_of(graph, value):
        return
    if value.dtype == ir.DataType.FLOAT and value.is_graph_input():
        held.add((reader, index))
    else:
        reader.replace_input_with(index, _exact(graph, node, value, casts))


def _is_of(graph: ir.Graph, value: ir.Value) -> bool:
    """Whether a value is an input of the graph, or one of its nodes makes it."""
    producer = value.producer()
    return value in graph.inputs if producer is None else producer.graph is graph


def _exact(graph: ir.Graph, node: ir.Node, value: ir.Value, casts: dict[ir.Value, ir.Value]) -> ir.Value:
    """A value as FP32, for `node`: what a cast made FP16 before, or else a cast in front of the node."""
    exact = _before_fence(value)
    if exact is not None:
        return exact
    if value not in casts:
        cast = _cast(value, ir.DataType.FLOAT, f"{label(node)}/to_fp32" + (f"_{len(casts)}" if casts else ""))
        graph.insert_before(node, cast)
        casts[value] = cast.outputs[0]
    return casts[value]


def _before_fence(value: ir.Value) -> ir.Value | None:
    """The FP32 value that another node's cast turned into this FP16 value; None if there was none."""
    producer = value.producer()
    if producer is None or producer.op_type != "Cast" or value.dtype != ir.DataType.FLOAT16:
        return None
    source = producer.inputs[0]
    return source if source is not None and source.dtype == ir.DataType.FLOAT else None


def _cast_input(graph: ir.Graph, value: ir.Value, held: set[tuple[ir.Node, int]]) -> None:
    cast = _cast(value, ir.DataType.FLOAT16, f"{value.name}/to_fp16")
    _redirect(value, cast, held)
    graph.insert_before(graph[0], cast)


def _cast_output(graph: ir.Graph, value: ir.Value) -> None:
    """Renames the last value to "<name>/fp16" and adds a cast with the old name, so that the output keeps its name and type."""
    name, producer = value.name, value.producer()
    assert name is not None
    assert producer is not None, "only what a node makes becomes FP16"
    value.name = f"{name}/fp16"
    cast = _cast(value, ir.DataType.FLOAT, name)
    cast.outputs[0].shape = value.shape
    graph.insert_after(producer, cast)
    graph.outputs[list(graph.outputs).index(value)] = cast.outputs[0]


def _cast(value: ir.Value, dtype: ir.DataType, name: str) -> ir.Node:
    node = ir.node("Cast", [value], {"to": dtype}, name=name)
    node.outputs[0].name, node.outputs[0].dtype, node.outputs[0].shape = name, dtype, value.shape
    return node


def _redirect(value: ir.Value, cast: ir.Node, exempt: Collection[tuple[ir.Node, int]] = ()) -> None:
    """Makes every reader of `value` read the cast instead, except for the cast itself and the inputs in `exempt`."""
    for reader, index in list(value.uses()):
        if reader is not cast and (reader, index) not in exempt:
            reader.replace_input_with(index, cast.outputs[0])


def _half(graph: ir.Graph, value: ir.Value, halves: dict[str, ir.Value]) -> ir.Value:
    """The FP16 copy of an initializer, made once."""
    name, array = value.name, constant(value)
    assert name is not None
    assert array is not None
    if name not in halves:
        largest = float(np.abs(array[~np.isinf(array)]).max(initial=0.0))
        if not largest <= LARGEST:  # NaN fails this too
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
