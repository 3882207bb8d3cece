"""Finds Q/DQ placements in an ONNX model that prevent a fusion, cost speed or cost accuracy. It builds nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir


@dataclass(frozen=True, slots=True)
class Finding:
    """One placement: the node, the builders on which it costs something, and the reason."""

    node: str
    where: str
    why: str


def lint(model: ir.Model) -> list[Finding]:
    """A model -> what its Q/DQ placement costs, in graph order; empty if there is no Q/DQ, or nothing to say."""
    if not any(node.op_type == "QuantizeLinear" for node in model.graph):
        return []
    checks = (_split_fusion, _zero_point, _activation_type, _half_quantised, _nothing_behind, _weight_scale, _concat_scales, _residual)
    return [finding for node in model.graph for check in checks for finding in check(node)]


def _split_fusion(node: ir.Node) -> Iterator[Finding]:
    source = _producer(_dequantized(node.inputs[0])) if node.op_type in ("Relu", "BatchNormalization") else None
    if source is not None and source.op_type == "Conv":
        why = f"Q/DQ between {source.name} and its {node.op_type} keeps the two from one kernel."
        yield Finding(str(node.name), "TensorRT 10/11, RTX, OpenVINO, ONNX Runtime", why)


def _zero_point(node: ir.Node) -> Iterator[Finding]:
    zero = node.inputs[2] if node.op_type == "QuantizeLinear" and len(node.inputs) > 2 else None
    if zero is not None and zero.const_value is not None and (zero.const_value.numpy() != 0).any():
        yield Finding(str(node.name), "TensorRT 10/11, RTX", "the zero point is not 0: the builder refuses asymmetric quantisation.")


def _activation_type(node: ir.Node) -> Iterator[Finding]:
    if node.op_type == "QuantizeLinear" and (len(node.inputs) < 3 or node.outputs[0].dtype == ir.DataType.INT8):
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
    if scale is not None and scale.const_value is not None and scale.const_value.size == 1:
        yield Finding(str(node.name), "all", "one scale for all channels of the weights costs accuracy.")


def _concat_scales(node: ir.Node) -> Iterator[Finding]:
    if node.op_type != "Concat" or not all(_is_dequantized(value) for value in node.inputs):
        return
    scales = set()
    for value in node.inputs:
        producer = _producer(value)
        scale = None if producer is None else producer.inputs[1]
        if scale is not None and scale.const_value is not None:
            scales.add(float(scale.const_value.numpy().max()))
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
