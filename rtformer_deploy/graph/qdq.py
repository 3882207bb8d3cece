"""Q/DQ placement: makes the layers of an FP32 model read eight-bit activations and weights, scaled by the ranges.

Layers are convolutions, and products with a constant matrix: the linear layers of a transformer. The quantisation is symmetric: one
scale for each activation tensor and for each output channel of weights. No Q/DQ stands between a layer and the BatchNorm, ReLU or Add
after it. Run it before functions are inlined, while the `rtformer` nodes are still there.
Three placements:

    tensorrt     int8 with zero point 0; the skip input of a residual Add is quantised too, so that the Add fuses into its convolution
    openvino     uint8 activations, before layers only: zero point 0 after a ReLU, 128 elsewhere, from the same amax
    onnxruntime  the same, and the result of a convolution (with its ReLU) is quantised too: its int8 kernel writes eight bits, and a
                 convolution without a Q after it runs in FP32 on dequantised values, slower than without any Q/DQ
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ..errors import CalibrationError, ModelError
from ..types import Ranges
from .edit import constant, initializer, label
from .functions import DOMAIN

Placement = Literal["tensorrt", "openvino", "onnxruntime"]
#: The operators with weights -> the axis of their weights that is the output channel.
_OUTPUT_AXIS = {"Conv": 0, "MatMul": 1}
_FEWEST = 16  # channels, unless they are a multiple of 8
_SMALLEST_SCALE = 2.0**-24  # FP16's smallest number: TensorRT's scales are stored in it


@dataclass(slots=True)
class _Work:
    """The state of one run: the quantised copy of each tensor so far, and the ranges that the tensors of a Concat share."""

    graph: ir.Graph
    ranges: Ranges
    placement: Placement
    shared: dict[str, float] = field(default_factory=dict)
    twins: dict[str, ir.Value] = field(default_factory=dict)


def to_qdq(model: ir.Model, ranges: Ranges, placement: Placement, exclude: Sequence[str] = ()) -> ir.Model:
    """Puts Q/DQ around the layers, except for those whose name matches a glob in `exclude`; changes the model.

    Raises CalibrationError if a tensor has no range, ModelError if a glob matches nothing or nothing is left to quantise; the model
    may then be half changed.
    """
    _check_names(model, exclude)
    layers = [node for node in model.graph if quantizable(node, model, exclude) and ranges_of(node, ranges) > 0]
    if not layers:
        raise ModelError("Nothing in the model can be quantised: every layer is excluded.", "Keep fewer nodes, or build with --fp16.")
    work = _Work(model.graph, ranges, placement)
    skips = [(node, index) for node, index in residual_skips(model, layers) if placement == "tensorrt"]
    results = [_result(node) for node in layers if placement == "onnxruntime" and node.op_type == "Conv"]
    results = [value for value in results if _amax(ranges, str(value.name)) > 0]
    read = [node.inputs[0] for node in layers] + [node.inputs[index] for node, index in skips] + results
    work.shared = shared_ranges(model, ranges, {value.name for value in read if value is not None and value.name is not None})
    for node in layers:
        node.replace_input_with(0, _activation(work, node.inputs[0]))
        node.replace_input_with(1, _weight(work, node))
    for node, index in skips:
        node.replace_input_with(index, _activation(work, node.inputs[index]))
    for value in results:
        _read_quantised(work, value)
    RemoveUnusedNodesPass()(model)
    return model


def quantizable(node: ir.Node, model: ir.Model, exclude: Sequence[str] = ()) -> bool:
    """Whether a node is a layer that INT8 makes faster without much loss.

    Left out: dynamic weights, fewer than 16 channels (unless a multiple of 8), neighbours of an `rtformer` node, whose values are too fine,
    the classifier, and names that match a glob in `exclude`.
    """
    if not has_weights(node) or any(fnmatch.fnmatchcase(node.name or "", glob) for glob in exclude):
        return False
    if any(channels < _FEWEST and channels % 8 for channels in _channels(node)):
        return False
    producer = None if node.inputs[0] is None else node.inputs[0].producer()
    readers = [reader for reader, _ in node.outputs[0].uses()]
    if (producer is not None and producer.domain == DOMAIN) or any(reader.domain == DOMAIN for reader in readers):
        return False
    return not _is_last(node, model)


def has_weights(node: ir.Node) -> bool:
    """Whether a node is a convolution with constant weights, or a product with a constant matrix."""
    if node.op_type not in _OUTPUT_AXIS or node.domain != "":
        return False
    weight = node.inputs[1]
    if weight is None or weight.const_value is None or weight.shape is None:
        return False
    return node.op_type == "Conv" or len(weight.shape) == 2


def _channels(node: ir.Node) -> tuple[int, int]:
    """The output and input channels of a layer."""
    weight = node.inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    shape = weight.const_value.shape.numpy()
    if node.op_type == "MatMul":
        return shape[1], shape[0]
    return shape[0], shape[1] * (node.attributes["group"].as_int() if "group" in node.attributes else 1)


def residual_skips(model: ir.Model, layers: Iterable[ir.Node]) -> list[tuple[ir.Node, int]]:
    """Each residual Add after a quantised convolution, and the index of its other input, the skip."""
    quantised = {node for node in layers if node.op_type == "Conv"}
    skips = []
    for node in model.graph:
        if node.op_type != "Add" or len(node.inputs) != 2:
            continue
        for index, value in enumerate(node.inputs):
            producer = None if value is None else value.producer()
            skip = node.inputs[1 - index]
            if producer in quantised and value is not None and len(value.uses()) == 1 and skip is not None and skip.producer() is not None:
                skips.append((node, 1 - index))
                break
    return skips


def shared_ranges(model: ir.Model, ranges: Ranges, read: set[str]) -> dict[str, float]:
    """Ranges of the tensors of a quantised Concat: the largest of its inputs and its output, so that it requantises nothing."""
    shared: dict[str, float] = {}
    for node in model.graph:
        if node.op_type != "Concat" or node.outputs[0].name not in read:
            continue
        names = [str(value.name) for value in (*node.inputs, *node.outputs) if value is not None]
        largest = max(ranges.amax.get(name, 0.0) for name in names)
        shared |= dict.fromkeys(names, largest)
    return shared


def _result(node: ir.Node) -> ir.Value:
    """A convolution's output. If its only reader is a ReLU, the ReLU's output."""
    readers = [reader for reader, _ in node.outputs[0].uses()]
    return readers[0].outputs[0] if len(readers) == 1 and readers[0].op_type == "Relu" else node.outputs[0]


def _read_quantised(work: _Work, value: ir.Value) -> None:
    """Makes every reader of a tensor read its eight-bit copy."""
    readers = [(reader, index) for reader, index in value.uses() if reader.op_type != "QuantizeLinear"]
    for reader, index in readers:
        reader.replace_input_with(index, _activation(work, value))


def ranges_of(node: ir.Node, ranges: Ranges) -> float:
    """The range of a layer's input. Raises CalibrationError if it was not measured."""
    value = node.inputs[0]
    return _amax(ranges, "" if value is None else str(value.name))


def _amax(ranges: Ranges, name: str) -> float:
    if name not in ranges.amax:
        raise CalibrationError(
            f"The ranges have no tensor {name}, which {ranges.model} needs.", "Measure them again: rtformer-deploy calibrate."
        )
    return ranges.amax[name]


def _activation(work: _Work, value: ir.Value | None) -> ir.Value:
    """The eight-bit copy of a tensor, made once for all readers."""
    assert value is not None
    name = str(value.name)
    if name in work.twins:
        return work.twins[name]
    amax = work.shared.get(name, _amax(work.ranges, name))
    if work.placement == "tensorrt":
        zero, scale = np.array(0, np.int8), amax / 127
    elif _is_positive(value):
        zero, scale = np.array(0, np.uint8), amax / 255
    else:
        zero, scale = np.array(128, np.uint8), amax / 127
    scales = _scales(np.array(scale), work.placement)
    parameters = [
        initializer(work.graph, f"{name}/activation_scale", scales),
        initializer(work.graph, f"{name}/activation_zero_point", zero),
    ]
    quantize = ir.node("QuantizeLinear", [value, *parameters], name=f"{name}/quantize")
    kind = ir.DataType.INT8 if work.placement == "tensorrt" else ir.DataType.UINT8
    _describe(quantize.outputs[0], f"{name}/quantized", kind, value)
    dequantize = ir.node("DequantizeLinear", [quantize.outputs[0], *parameters], name=f"{name}/dequantize")
    _describe(dequantize.outputs[0], f"{name}/dequantized", ir.DataType.FLOAT, value)
    producer = value.producer()
    if producer is None:
        work.graph.insert_before(work.graph[0], [quantize, dequantize])
    else:
        work.graph.insert_after(producer, [quantize, dequantize])
    work.twins[name] = dequantize.outputs[0]
    return dequantize.outputs[0]


def _weight(work: _Work, node: ir.Node) -> ir.Value:
    """A layer's weights, stored as int8 with one scale per output channel, and dequantised."""
    value = node.inputs[1]
    weights = constant(value)
    assert value is not None
    assert weights is not None
    name, array = f"{label(node)}/weight", weights.astype(np.float64)
    axis = _OUTPUT_AXIS[node.op_type]
    largest = np.abs(array).max(tuple(each for each in range(array.ndim) if each != axis))
    if not np.isfinite(largest).all():
        raise ModelError(f"The weight {value.name} holds NaN or infinity.")
    scales = _scales(np.where(largest > 0, largest, 1.0) / 127, work.placement)
    across = np.expand_dims(scales.astype(np.float64), [each for each in range(array.ndim) if each != axis])
    quantized = np.clip(np.rint(array / across), -127, 127).astype(np.int8)
    inputs = [
        initializer(work.graph, f"{name}/int8", quantized),
        initializer(work.graph, f"{name}/scale", scales),
        initializer(work.graph, f"{name}/zero_point", np.zeros(len(scales), np.int8)),
    ]
    dequantize = ir.node("DequantizeLinear", inputs, {"axis": axis}, name=f"{name}/dequantize")
    _describe(dequantize.outputs[0], f"{name}/dequantized", ir.DataType.FLOAT, value)
    work.graph.insert_before(node, dequantize)
    return dequantize.outputs[0]


def _scales(scales: NDArray[np.float64], placement: Placement) -> NDArray[np.float32]:
    """Scales as FP32. For TensorRT they are rounded up to numbers that FP16 holds, so that rounding clips nothing."""
    if placement != "tensorrt":
        return scales.astype(np.float32)
    half = np.maximum(scales, _SMALLEST_SCALE).astype(np.float16)
    larger = np.where(half.astype(np.float64) < scales, np.nextafter(half, np.float16(np.inf)), half)
    return np.asarray(larger, np.float32)


def _is_positive(value: ir.Value) -> bool:
    """Whether a tensor comes from a ReLU, directly or through pooling."""
    producer = value.producer()
    if producer is not None and producer.op_type in ("MaxPool", "AveragePool") and producer.inputs[0] is not None:
        return _is_positive(producer.inputs[0])
    return producer is not None and producer.op_type == "Relu"


def _is_last(node: ir.Node, model: ir.Model) -> bool:
    """Whether a layer is the classifier: no other layer is between it and the model's output."""
    seen: set[ir.Node] = set()
    queue = [output.producer() for output in model.graph.outputs]
    while queue:
        current = queue.pop()
        if current is node:
            return True
        if current is None or current in seen or current.op_type == "Conv" or has_weights(current):
            continue
        seen.add(current)
        queue += [value.producer() for value in current.inputs if value is not None]
    return False


def _check_names(model: ir.Model, exclude: Sequence[str]) -> None:
    names = [node.name or "" for node in model.graph]
    for glob in exclude:
        if not fnmatch.filter(names, glob):
            raise ModelError(
                f"--keep {glob} matches no node of the model.", "rtformer-deploy inspect names its operators; * stands for anything."
            )


def _describe(value: ir.Value, name: str, dtype: ir.DataType, like: ir.Value) -> None:
    value.name, value.dtype, value.shape = name, dtype, like.shape
