"""Makes nodes for our TensorRT plugins (build/trt_plugins.py): the double normalisation, and a head that gives labels.

Run it after `to_fp16` and before functions are inlined. GroupedDoubleNorm stays a node; its plugin computes in FP32 for every type.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ..image.geometry import Size, cell_at, output_axes
from .edit import initializer
from .functions import DOMAIN

PLUGIN = {"plugin_namespace": DOMAIN, "plugin_version": "1"}


def use_quick_plugins(model: ir.Model) -> ir.Model:
    """Turns GroupedDoubleNorm into plugin nodes, and also the head if it gives labels; changes the model."""
    for node in model.graph:
        if (node.domain, node.op_type) == (DOMAIN, "GroupedDoubleNorm"):
            for name, value in PLUGIN.items():
                node.attributes[name] = ir.AttrString(name, value)
    model.functions.pop((DOMAIN, "GroupedDoubleNorm", ""), None)
    names = {node.name: node for node in model.graph}
    if "head/ArgMax" in names and _has_half_pixels(names["head/Resize"]):  # the plugin reads no other grid
        _replace_head(model, names["head/Resize"].inputs[0])
        model.opset_imports[DOMAIN] = 1
    return model


def _has_half_pixels(resize: ir.Node) -> bool:
    return resize.attributes.get_string("coordinate_transformation_mode") == "half_pixel"


def _replace_head(model: ir.Model, logits: ir.Value | None) -> None:
    """Replaces the nodes between the network's logits and the labels by one node."""
    graph = model.graph
    labels = graph.outputs[0]
    size = _extent(labels)
    rows, columns = output_axes(_extent(logits), size, size, "stretch")
    tables = {
        "row_cells": rows.cells,
        "row_weight": rows.padded_weight,
        "column_cells": columns.cells,
        "column_weight": columns.weight,
        "column_cell": cell_at(columns),
    }
    inputs = [logits, *(initializer(graph, f"head/{name}", table) for name, table in tables.items())]
    attributes: dict[str, Any] = {"height": size[0], "width": size[1], **PLUGIN}
    node = ir.node("UpsampleArgmax", inputs, attributes, domain=DOMAIN, name="head/UpsampleArgmax")
    output = node.outputs[0]
    output.name, output.dtype, output.shape = labels.name, ir.DataType.UINT8, labels.shape
    labels.name = f"{labels.name}/unused"
    graph.append(node)
    graph.outputs[0] = output
    RemoveUnusedNodesPass()(model)


def _extent(value: ir.Value | None) -> Size:
    """The height and width of a tensor whose last axes they are."""
    assert value is not None
    assert value.shape is not None
    height, width = value.shape[-2:]
    assert isinstance(height, int), "an engine has one spatial size"
    assert isinstance(width, int), "an engine has one spatial size"
    return height, width
