"""Rewrites the Q/DQ that another tool wrote, where a builder would refuse it or compute it wrongly. The values stay the same."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..errors import ModelError
from .edit import constant, initializer, label
from .notes import add_note
from .weights import WEIGHTED, output_axis


def settle_foreign_qdq(model: ir.Model, on_gpu: bool) -> ir.Model:
    """Turns dequantised constants into plain ones where no builder takes them otherwise; changes the model.

    Those are weights with scales along another axis than their output channels, and, for TensorRT, biases in int32. Raises ModelError
    for uint8 on TensorRT, which would read it as int8.
    """
    for node in list(model.graph):
        if node.op_type == "DequantizeLinear" and node.domain == "":
            _settle(model, node, on_gpu)
        if on_gpu and node.op_type == "QuantizeLinear" and node.outputs[0].dtype != ir.DataType.INT8:
            _refuse_uint8(node)
    return model


def _settle(model: ir.Model, node: ir.Node, on_gpu: bool) -> None:
    levels, scale = (constant(value) for value in node.inputs[:2])
    if levels is None or scale is None:
        return
    if on_gpu and levels.dtype == np.int32:
        why = "biases in int32 are stored as numbers, because TensorRT takes no others"
    elif scale.size > 1 and any(_is_other_axis(node, reader, index, levels.ndim) for reader, index in node.outputs[0].uses()):
        why = "weights with scales along another axis than their output channels are stored as numbers: builders compute them wrongly"
    else:
        return
    zero = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    array = dequantised(levels, scale, zero, axis_of(node, levels.ndim))
    output = node.outputs[0]
    plain = initializer(model.graph, f"{label(node)}/number", array)
    ir.convenience.replace_all_uses_with(output, plain)
    model.graph.remove(node, safe=True)
    add_note(model, f"Of what was quantised by another tool, {why}.")


def dequantised(
    levels: NDArray[np.generic], scale: NDArray[np.float32], zero: NDArray[np.generic] | None, axis: int
) -> NDArray[np.float32]:
    """What a DequantizeLinear gives, computed in double precision and rounded once."""
    along = [-1 if each == axis else 1 for each in range(levels.ndim)]

    def spread(array: NDArray[np.generic]) -> NDArray[np.float64]:
        return array.astype(np.float64).reshape(along if array.size > 1 else [1] * levels.ndim)

    centred = levels.astype(np.float64) - (0.0 if zero is None else spread(zero))
    return np.asarray(centred * spread(scale), np.float32)


def axis_of(node: ir.Node, rank: int) -> int:
    """The axis along which a QuantizeLinear or DequantizeLinear has its scales."""
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
    return axis % rank if rank else 0


def _is_other_axis(node: ir.Node, reader: ir.Node, index: int, rank: int) -> bool:
    """Whether a node reads the dequantised weight with scales along another axis than its output channels."""
    if reader.op_type not in WEIGHTED or reader.domain != "" or index > 1:
        return False
    return output_axis(reader, index, rank) != axis_of(node, rank)


def _refuse_uint8(node: ir.Node) -> None:
    zero = constant(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(1, np.uint8)  # uint8 is what ONNX means without one
    if zero is not None and zero.dtype == np.uint8:
        raise ModelError(
            f"{label(node)} quantises to uint8, which TensorRT does not have: it would read the levels as int8.",
            "Build it with --backend openvino or onnxruntime, or give the model from before it was quantised.",
        )
