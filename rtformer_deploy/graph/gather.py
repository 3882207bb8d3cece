"""Rewrites gathers by a table of indices as gathers by a list and a reshape, which mean the same.

OpenVINO's low-precision passes take a BatchNormalization for a dequantisation and move it behind the Gather, where with a table of
indices its channels no longer fit (2026.4: "GatherTransformation CALLBACK HAS THROWN").
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass, ShapeInferencePass


def flatten_gathers(model: ir.Model) -> ir.Model:
    """A model without functions -> the same, changed in place: no Gather has constant indices of more than one dimension."""
    LiftConstantsToInitializersPass(lift_all_constants=False, size_limit=0)(model)
    ShapeInferencePass()(model)
    for node in list(model.graph):
        if node.op_type == "Gather" and node.domain == "":
            _flatten(model.graph, node)
    return model


def _flatten(graph: ir.Graph, node: ir.Node) -> None:
    data, indices = node.inputs
    if data is None or data.shape is None or indices is None or indices.const_value is None:
        return
    table = indices.const_value.numpy()
    axis = node.attributes["axis"].as_int() % len(data.shape) if "axis" in node.attributes else 0
    behind = len(data.shape) - axis - 1
    if table.ndim < 2 or behind > 1:  # a reshape can leave one dimension open
        return
    shape = np.array([0] * axis + list(table.shape) + [-1] * behind, np.int64)
    name = str(node.outputs[0].name)
    rows = ir.node("Gather", [data, _constant(graph, f"{name}/indices", table.ravel())], {"axis": axis}, name=f"{name}/flat")
    rows.outputs[0].name, rows.outputs[0].type = f"{name}/flat", data.type
    reshape = ir.node("Reshape", [rows.outputs[0], _constant(graph, f"{name}/shape", shape)], name=f"{name}/reshape")
    old = node.outputs[0]
    reshape.outputs[0].type, reshape.outputs[0].shape = old.type, old.shape
    graph.insert_before(node, [rows, reshape])
    ir.convenience.replace_all_uses_with(old, reshape.outputs[0])
    graph.remove(node, safe=True)
    reshape.outputs[0].name = name


def _constant(graph: ir.Graph, name: str, array: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
    graph.register_initializer(value)
    return value
