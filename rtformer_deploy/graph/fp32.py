"""Converts FP16 and BF16 in a graph to FP32: the form in which a model from elsewhere is calibrated and its precision chosen."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .edit import all_nodes, all_values
from .retype import retype_attributes

_HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def holds_half(model: ir.Model) -> bool:
    """Whether any tensor of a model is FP16 or BF16."""
    return any(value.dtype in _HALVES for value in all_values(model)) or any(_makes_half(node) for node in all_nodes(model))


def to_fp32(model: ir.Model) -> ir.Model:
    """Makes FP16 and BF16 tensors FP32, inputs, outputs, bodies and functions included; changes the model.

    Every name stays. What was rounded to FP16 is no longer rounded, so values differ by FP16's own error.
    """
    for node in all_nodes(model):
        for old in _HALVES:
            retype_attributes(node, old, ir.DataType.FLOAT)
    for value in dict.fromkeys(all_values(model)):
        if value.dtype not in _HALVES:
            continue
        tensor = value.const_value
        if tensor is not None:
            value.const_value = ir.tensor(tensor.numpy().astype(np.float32), name=value.name)
        value.dtype = ir.DataType.FLOAT
    return model


def _makes_half(node: ir.Node) -> bool:
    """Whether a node's attribute asks for FP16 or BF16, as in a model whose values have no types."""
    return node.op_type == "Cast" and node.domain == "" and node.attributes["to"].as_int() in _HALVES
