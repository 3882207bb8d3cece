"""Marks what standard TensorRT is to run as a plugin of ours (build/trt_plugins.py): the double normalisation, and the head that gives labels.

Works after `to_fp16` and before functions are inlined. GroupedDoubleNorm stays a node: it computes in FP32 inside whatever its type is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ..geometry import output_axes
from ..types import ModelSpec
from .functions import DOMAIN

PLUGIN = {"plugin_namespace": DOMAIN, "plugin_version": "1"}


def use_quick_plugins(model: ir.Model, spec: ModelSpec) -> ir.Model:
    """A model -> a copy whose GroupedDoubleNorm nodes, and whose upsampling with argmax where it gives labels, are plugins' nodes."""
    model = ir.serde.deserialize_model(ir.serde.serialize_model(model))
    for node in model.graph:
        if (node.domain, node.op_type) == (DOMAIN, "GroupedDoubleNorm"):
            for name, value in PLUGIN.items():
                node.attributes[name] = ir.AttrString(name, value)
    model.functions.pop((DOMAIN, "GroupedDoubleNorm", ""), None)
    if spec.head == "labels":
        _replace_head(model, spec)
        model.opset_imports[DOMAIN] = 1
    return model


def _replace_head(model: ir.Model, spec: ModelSpec) -> None:
    """The stride-8 logits -> labels in one node; what came between has no reader any more."""
    graph = model.graph
    resize = next(node for node in graph if node.name == "head/Resize")
    logits, labels = resize.inputs[0], graph.outputs[0]
    assert logits is not None
    assert logits.shape is not None
    grid = int(logits.shape[2]), int(logits.shape[3])  # type: ignore[arg-type]
    rows, columns = output_axes(grid, spec.size, spec.size, "stretch")
    cell = np.repeat(np.arange(columns.cells.size - 1, dtype=np.int32), np.diff(columns.cells))
    tables = {
        "row_cells": rows.cells,
        "row_weight": rows.weight,
        "column_cells": columns.cells,
        "column_weight": columns.weight,
        "column_cell": cell,
    }
    inputs = [logits, *(_initializer(model, f"head/{name}", table) for name, table in tables.items())]
    attributes: dict[str, Any] = {"height": spec.size[0], "width": spec.size[1], **PLUGIN}
    node = ir.node("UpsampleArgmax", inputs, attributes, domain=DOMAIN, name="head/UpsampleArgmax")
    output = node.outputs[0]
    output.name, output.dtype, output.shape = labels.name, labels.dtype, labels.shape
    labels.name = f"{labels.name}/unused"
    graph.append(node)
    graph.outputs[0] = output
    RemoveUnusedNodesPass()(model)


def _initializer(model: ir.Model, name: str, table: NDArray[Any]) -> ir.Value:
    tensor = ir.tensor(np.array(table), name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(table.shape), const_value=tensor)
    model.graph.register_initializer(value)
    return value
