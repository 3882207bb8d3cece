"""Rewrites a Gather by a table of indices as a Gather by a list and a Reshape, with the same result.

OpenVINO's low-precision passes take a BatchNormalization for a dequantisation and move it behind the Gather, where its
channels no longer fit a table of indices (2026.4: "GatherTransformation CALLBACK HAS THROWN").
"""

from __future__ import annotations

import copy

import numpy as np
import onnx_ir as ir

from ..formats.tensor_types import infer_types
from .edit import constant, initializer, lift_constants


def flatten_gathers(model: ir.Model) -> ir.Model:
    """Rewrites every Gather with constant indices of several dimensions; changes the model, which must have no functions."""
    lift_constants(model)
    infer_types(model)
    for node in list(model.graph):
        if node.op_type == "Gather" and node.domain == "":
            _flatten(model.graph, node)
    return model


def _flatten(graph: ir.Graph, node: ir.Node) -> None:
    data, indices = node.inputs
    table = constant(indices)
    if data is None or data.shape is None or table is None:
        return
    axis = node.attributes["axis"].as_int() % len(data.shape) if "axis" in node.attributes else 0
    behind = len(data.shape) - axis - 1
    if table.ndim < 2 or behind > 1:  # a Reshape can infer one dimension only
        return
    shape = np.array([0] * axis + list(table.shape) + [-1] * behind, np.int64)
    name = str(node.outputs[0].name)
    rows = ir.node("Gather", [data, initializer(graph, f"{name}/indices", table.ravel())], {"axis": axis}, name=f"{name}/flat")
    rows.outputs[0].name, rows.outputs[0].type = f"{name}/flat", copy.copy(data.type)
    reshape = ir.node("Reshape", [rows.outputs[0], initializer(graph, f"{name}/shape", shape)], name=f"{name}/reshape")
    old = node.outputs[0]
    reshape.outputs[0].type, reshape.outputs[0].shape = copy.copy(old.type), old.shape
    graph.insert_before(node, [rows, reshape])
    ir.convenience.replace_all_uses_with(old, reshape.outputs[0])
    graph.remove(node, safe=True)
    reshape.outputs[0].name = name
