"""Finds Q/DQ placements in an ONNX model that prevent a fusion, cost speed or accuracy, or that a builder refuses. It builds nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from .edit import constant
from .foreign_qdq import axis_of
from .opset import HALF_SCALES
from .weights import WEIGHTED, output_axis


@dataclass(frozen=True, slots=True)
class Finding:
    """One placement: the node, the builders on which it costs something, and the reason."""

    node: str
    where: str
    why: str


def lint(model: ir.Model) -> list[Finding]:
    """A model -> what its Q/DQ placement costs, in graph order; empty if there is no Q/DQ, or nothing to say."""
    if not any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph):
        return []
    checks = (_split_fusion, _zero_point, _uint8, _activation_type, _half_quantised, _nothing_behind, _weight_scale, _weight_axis, _bias,
              _concat_scales, _residual, _gather_table)  # fmt: skip
    halves = _half_scale if model.opset_imports.get("", HALF_SCALES) < HALF_SCALES else _nothing
    return [finding for node in model.graph for check in (*checks, halves) for finding in check(node)]


def _nothing(node: ir.Node) -> Iterator[Finding]:
    yield from ()


def _split_fusion(node: ir.Node) -> Iterator[Finding]:
    source = _producer(_dequantized(node.inputs[0])) if node.op_type in ("Relu", "BatchNormalization") else None
    if source is not None and source.op_type == "Conv":
        why = f"Q/DQ between {source.name} and its {node.op_type} keeps the two from one kernel."
        yield Finding(str(node.name), "TensorRT 10/11, RTX, OpenVINO, ONNX Runtime", why)


def _zero_point(node: ir.Node) -> Iterator[Finding]:
    zero = node.inputs[2] if node.op_type == "QuantizeLinear" and len(node.inputs) > 2 else None
    levels = constant(zero)
    if levels is not None and (levels != 0).any():
        yield Finding(str(node.name), "TensorRT 10/11, RTX", "the zero point is not 0: the builder refuses asymmetric quantisation.")


def _uint8(node: ir.Node) -> Iterator[Finding]:
    if node.op_type == "QuantizeLinear" and _quantises_to_uint8(node):
        yield Finding(str(node.name), "TensorRT 10/11, RTX", "uint8 activations: the builder has int8 only.")


def _quantises_to_uint8(node: ir.Node) -> bool:
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    array = constant(zero)
    if array is not None:
        return array.dtype == np.uint8
    return zero is None and ("output_dtype" not in node.attributes or node.attributes["output_dtype"].as_int() == ir.DataType.UINT8)


def _activation_type(node: ir.Node) -> Iterator[Finding]:
    if node.op_type == "QuantizeLinear" and not _quantises_to_uint8(node):
        yield Finding(str(node.name), "ONNX Runtime, OpenVINO", "int8 activations: the fast CPU kernels take uint8.")


def _half_quantised(node: ir.Node) -> Iterator[Finding]:
    if node.op_type != "Conv":
        return
    data, weight = (_is_dequantized(node.inputs[index]) for index in (0, 1))
    if data != weight:
        part = "activations" if data else "weights"
        yield Finding(
            str(node.name), "all", f"only the {part} are quantised, so it computes in high precision and pays for the conversion."
        )


def _nothing_behind(node: ir.Node) -> Iterator[Finding]:
    if node.op_type != "Conv" or not _is_dequantized(node.inputs[0]) or not _is_dequantized(node.inputs[1]):
        return
    readers = [reader for reader, _ in node.outputs[0].uses()]
    if len(readers) == 1 and readers[0].op_type == "Relu":
        readers = [reader for reader, _ in readers[0].outputs[0].uses()]
    if any(reader.op_type != "QuantizeLinear" for reader in readers):
        why = "what it gives is not quantised for all its readers, so it computes in FP32 on dequantised values."
        yield Finding(str(node.name), "ONNX Runtime", why)


def _weight_scale(node: ir.Node) -> Iterator[Finding]:
    producer = _producer(node.inputs[1]) if node.op_type == "Conv" else None
    scale = producer.inputs[1] if producer is not None and producer.op_type == "DequantizeLinear" else None
    array = constant(scale)
    if array is not None and array.size == 1:
        yield Finding(str(node.name), "all", "one scale for all channels of the weights costs accuracy.")


def _weight_axis(node: ir.Node) -> Iterator[Finding]:
    for index, value in enumerate(node.inputs[:2]):
        producer = _producer(value)
        if node.op_type not in WEIGHTED or node.domain or producer is None or producer.op_type != "DequantizeLinear":
            continue
        levels, scale = (constant(each) for each in producer.inputs[:2])
        if levels is None or scale is None or scale.size < 2 or axis_of(producer, levels.ndim) == output_axis(node, index, levels.ndim):
            continue
        why = f"the weights have scales along axis {axis_of(producer, levels.ndim)}, which is not that of the output channels"
        yield Finding(
            str(node.name), "all", f"{why}: no int8 kernel takes them, and some compute them wrongly. build-engine stores them in FP32."
        )


def _bias(node: ir.Node) -> Iterator[Finding]:
    if node.op_type != "DequantizeLinear" or (levels := constant(node.inputs[0])) is None or levels.dtype != np.int32:
        return
    readers = ", ".join(str(reader.name) for reader, _ in node.outputs[0].uses())
    why = f"the bias of {readers} is dequantised from int32, which the builder refuses. build-engine stores it as numbers."
    yield Finding(str(node.name), "TensorRT 10/11, RTX", why)


def _half_scale(node: ir.Node) -> Iterator[Finding]:
    if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or node.inputs[1] is None:
        return
    array = constant(node.inputs[1])
    if node.inputs[1].dtype == ir.DataType.FLOAT16 or (array is not None and array.dtype == np.float16):
        yield Finding(str(node.name), "all", f"its scale is FP16, which ONNX allows from opset {HALF_SCALES} on.")


def _gather_table(node: ir.Node) -> Iterator[Finding]:
    indices = constant(node.inputs[1]) if node.op_type == "Gather" and node.domain == "" else None
    if indices is not None and indices.ndim > 1:
        why = "a Gather by a table of indices in a quantised model does not compile. build-engine rewrites it as a Gather by a list."
        yield Finding(str(node.name), "OpenVINO", why)


def _concat_scales(node: ir.Node) -> Iterator[Finding]:
    if node.op_type != "Concat" or not all(_is_dequantized(value) for value in node.inputs):
        return
    scales = set()
    for value in node.inputs:
        producer = _producer(value)
        scale = None if producer is None else producer.inputs[1]
        array = constant(scale)
        if array is not None:
            scales.add(float(array.max()))
    if len(scales) > 1:
        yield Finding(str(node.name), "TensorRT 10/11, RTX", "what it joins has different scales, so it is requantised.")


def _residual(node: ir.Node) -> Iterator[Finding]:
    if node.op_type != "Add":
        return
    alone = [value for value in node.inputs if value is not None and len(value.uses()) == 1]  # others are stored anyway
    convolutions = [p for value in alone if (p := _producer(value)) is not None and p.op_type == "Conv" and _is_dequantized(p.inputs[0])]
    if convolutions and not any(_is_dequantized(value) for value in node.inputs):
        why = f"the skip input is not quantised, so the Add does not fuse into {convolutions[0].name}."
        yield Finding(str(node.name), "TensorRT 10/11, RTX", why)


def _producer(value: ir.Value | None) -> ir.Node | None:
    return None if value is None else value.producer()


def _is_dequantized(value: ir.Value | None) -> bool:
    producer = _producer(value)
    return producer is not None and producer.op_type == "DequantizeLinear"


def _dequantized(value: ir.Value | None) -> ir.Value | None:
    """The value before a Q/DQ pair; None if `value` does not come from such a pair."""
    for operator in ("DequantizeLinear", "QuantizeLinear"):
        producer = _producer(value)
        if producer is None or producer.op_type != operator:
            return None
        value = producer.inputs[0]
    return value
