"""Q/DQ placement: makes the convolutions and matrix products of an FP32 model read eight-bit activations and weights.

The quantisation is symmetric: one scale for each activation tensor, from its range, and for each output channel of weights (`weights`
says along which axis these lie). No Q/DQ stands between a convolution and the BatchNorm, ReLU or Add after it. Run it before functions are
inlined, while the `rtformer` nodes are still there.
Four placements:

    tensorrt     int8 with zero point 0; the skip input of a residual Add is quantised too, so that the Add fuses into its convolution
    tensorrt-fp8 the same with FP8, which GPUs of compute capability 8.9 and later multiply; scales are amax / 448
    openvino     uint8 activations, before layers only: zero point 0 where they are never negative (`signs`), 128 elsewhere, from the
                 same amax
    onnxruntime  the same, and the result of a convolution (with its ReLU) is quantised too: its int8 kernel writes eight bits, and a
                 convolution without a Q after it runs in FP32 on dequantised values, slower than without any Q/DQ. A product
                 with a matrix needs no Q after it, but its bias has three axes
"""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ..errors import CalibrationError, ModelError
from ..formats.ranges import LEVELS, SMALLEST_NORMAL, has_scale
from ..types import Ranges
from .edit import constant, initializer, label, lift_constants
from .eight_bits import FP8, INT8, UINT8, EightBits
from .fold import fold_weights
from .quantised import refuse_quantised
from .quantizable import ON_TENSORRT, Placement, data_of, quantizable, why_not
from .signs import never_negative
from .weights import WEIGHTED, Weight, weight_of

#: Levels of weights of which two, times 255, fit 16 bits together.
SHORT_LEVELS = 63
_UNEVEN = 16  # times smaller than the largest channel
_SMALLEST_SCALE = 2.0**-24  # FP16's smallest number: TensorRT's scales are stored in it


@dataclass(slots=True)
class _Work:
    """The state of one run: the quantised copy of each tensor so far, the ranges that the tensors of a Concat share, and which tensors
    are never negative."""

    graph: ir.Graph
    ranges: Ranges
    placement: Placement
    weight_levels: int
    positive: set[ir.Value]
    shared: dict[str, float] = field(default_factory=dict)
    twins: dict[str, ir.Value] = field(default_factory=dict)

    @property
    def kind(self) -> EightBits:
        """The format of the weights, and on TensorRT of the activations too."""
        return FP8 if self.placement == "tensorrt-fp8" else INT8


def to_qdq(model: ir.Model, ranges: Ranges, placement: Placement, exclude: Sequence[str] = (), weight_levels: int = LEVELS) -> ir.Model:
    """Puts Q/DQ around the operators with weights, except for those whose name matches a glob in `exclude`; changes the model.

    What reads a tensor whose range is zero stays in high precision. `weight_levels` is how many levels the weights have on each side of
    zero: 127, or SHORT_LEVELS for a CPU whose sums overflow otherwise. Raises CalibrationError if a tensor has no range, ModelError if the
    model is quantised already, a glob matches nothing or nothing is left to quantise; the model may then be half changed.
    """
    refuse_quantised(model)
    _check_names(model, exclude)
    fold_weights(lift_constants(model))
    operators = [node for node in model.graph if quantizable(node, model, exclude, placement) and ranges_of(node, ranges) > 0]
    work = _Work(model.graph, ranges, placement, weight_levels, never_negative(model.graph))
    if not operators:
        raise ModelError(f"Nothing in the model can be quantised: {_why_nothing(work, model, exclude)}.", "Build with --fp16 or --fp32.")
    skips, results = _skips(work, model, operators), _results(work, operators)
    read = [data_of(node) for node in operators] + [node.inputs[index] for node, index in skips] + results
    work.shared = shared_ranges(model, ranges, {value.name for value in read if value is not None and value.name is not None})
    for node in operators:
        _quantise(work, node)
        if placement == "onnxruntime" and node.op_type == "MatMul":
            _widen_bias(work, node)
    for node, index in skips:
        node.replace_input_with(index, _activation(work, node.inputs[index]))
    for value in results:
        _read_quantised(work, value)
    RemoveUnusedNodesPass()(model)
    return model


def _quantise(work: _Work, node: ir.Node) -> None:
    """Makes an operator read eight-bit copies of both of its factors."""
    weight = weight_of(node)
    assert weight is not None
    node.replace_input_with(weight.data, _activation(work, node.inputs[weight.data]))
    node.replace_input_with(weight.index, _weight(work, node, weight))


def _skips(work: _Work, model: ir.Model, operators: Sequence[ir.Node]) -> list[tuple[ir.Node, int]]:
    """The skip inputs of residual Adds to quantise: TensorRT's, unless they were zero."""
    if work.placement not in ON_TENSORRT:
        return []
    skips = residual_skips(model, operators)
    return [(node, index) for node, index in skips if _amax(work.ranges, _name(node.inputs[index])) > 0]


def _results(work: _Work, operators: Sequence[ir.Node]) -> list[ir.Value]:
    """The results of convolutions to quantise: ONNX Runtime's, unless they were zero or one scale would not do for all channels."""
    if work.placement != "onnxruntime":
        return []
    results = [_result(node) for node in operators if node.op_type == "Conv" and _is_even(node)]
    return [value for value in results if _amax(work.ranges, _name(value)) > 0]


def _name(value: ir.Value | None) -> str:
    return "" if value is None else str(value.name)


def _is_even(node: ir.Node) -> bool:
    """Whether the output channels of a convolution are of like size, going by their weights.

    If more than a tenth of them are much smaller than the largest, storing the result in eight bits with one scale would leave those a
    few levels only. ONNX Runtime then computes such a convolution in FP32, on dequantised values.
    """
    weight = weight_of(node)
    assert weight is not None
    array = constant(node.inputs[weight.index])
    assert array is not None
    norms = np.sqrt(np.square(array.astype(np.float64)).sum(axis=tuple(axis for axis in range(array.ndim) if axis != weight.axis)))
    norms = norms[norms > 0]
    return norms.size == 0 or bool(np.mean(norms < norms.max() / _UNEVEN) <= 0.1)


def _why_nothing(work: _Work, model: ir.Model, exclude: Sequence[str]) -> str:
    """What keeps each operator of the model out of INT8, in words."""
    reasons: Counter[str] = Counter()
    for node in model.graph.all_nodes():
        weight = weight_of(node)
        if node.op_type not in WEIGHTED or node.domain:
            continue
        if weight is None:
            reasons["without constant weights"] += 1
        elif node.graph is not model.graph:
            reasons["inside the body of an If, Loop or Scan"] += 1
        else:
            reasons[why_not(node, weight, model, exclude, work.placement) or "whose input was zero on every image"] += 1
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "it has no convolution and no matrix product"


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
    """The range of what an operator multiplies by its weight. Raises CalibrationError if it was not measured."""
    return _amax(ranges, _name(data_of(node)))


def _amax(ranges: Ranges, name: str) -> float:
    if name not in ranges.amax:
        raise CalibrationError(
            f"The ranges have no tensor {name}, which {ranges.model} needs.", "Measure them again: rtformer-deploy calibrate."
        )
    amax = ranges.amax[name]
    return amax if has_scale(amax) else 0.0


def _activation(work: _Work, value: ir.Value | None) -> ir.Value:
    """The eight-bit copy of a tensor, made once for all readers."""
    assert value is not None
    name = str(value.name)
    if name in work.twins:
        return work.twins[name]
    kind, zero, scale = _activation_format(work, value, work.shared.get(name, _amax(work.ranges, name)))
    parameters = [
        initializer(work.graph, f"{name}/activation_scale", _scales(np.array(scale), work.placement)),
        initializer(work.graph, f"{name}/activation_zero_point", kind.zero(zero)),
    ]
    quantize = ir.node("QuantizeLinear", [value, *parameters], name=f"{name}/quantize")
    _describe(quantize.outputs[0], f"{name}/quantized", kind.dtype, value)
    dequantize = ir.node("DequantizeLinear", [quantize.outputs[0], *parameters], name=f"{name}/dequantize")
    _describe(dequantize.outputs[0], f"{name}/dequantized", ir.DataType.FLOAT, value)
    producer = value.producer()
    if producer is None:
        work.graph.insert_before(work.graph[0], [quantize, dequantize])
    else:
        work.graph.insert_after(producer, [quantize, dequantize])
    work.twins[name] = dequantize.outputs[0]
    return dequantize.outputs[0]


def _activation_format(work: _Work, value: ir.Value, amax: float) -> tuple[EightBits, int, float]:
    """The format, the zero point and the scale of a tensor's eight-bit copy."""
    if work.placement in ON_TENSORRT:
        return work.kind, 0, amax / work.kind.most
    return (UINT8, 0, max(amax / UINT8.most, SMALLEST_NORMAL)) if value in work.positive else (UINT8, 128, amax / LEVELS)


def _weight(work: _Work, node: ir.Node, weight: Weight) -> ir.Value:
    """An operator's weight, stored in eight bits with one scale per output channel, and dequantised.

    A channel whose weights are zero, or too small for a scale, becomes zeros.
    """
    value = node.inputs[weight.index]
    weights = constant(value)
    assert value is not None
    assert weights is not None
    name, array = f"{label(node)}/weight", weights.astype(np.float64)
    largest = np.abs(array).max(axis=tuple(axis for axis in range(array.ndim) if axis != weight.axis))
    if not np.isfinite(largest).all():
        raise ModelError(f"The weight {value.name} holds NaN or infinity.")
    exists = largest / LEVELS >= SMALLEST_NORMAL
    kind, most = work.kind, work.weight_levels if work.kind is INT8 else work.kind.most
    scales = _scales(np.where(exists, largest, 1.0) / most, work.placement)
    along = [-1 if axis == weight.axis else 1 for axis in range(array.ndim)]
    levels = np.where(exists.reshape(along), array / scales.astype(np.float64).reshape(along), 0.0)
    inputs = [
        initializer(work.graph, f"{name}/{kind.name}", kind.stored(levels, most)),
        initializer(work.graph, f"{name}/scale", scales),
        initializer(work.graph, f"{name}/zero_point", np.broadcast_to(kind.zero(), len(scales)).copy()),
    ]
    dequantize = ir.node("DequantizeLinear", inputs, {"axis": weight.axis}, name=f"{name}/dequantize")
    _describe(dequantize.outputs[0], f"{name}/dequantized", ir.DataType.FLOAT, value)
    work.graph.insert_before(node, dequantize)
    return dequantize.outputs[0]


def _widen_bias(work: _Work, node: ir.Node) -> None:
    """Gives a product's bias (N) the shape (1, 1, N). ONNX Runtime makes a Gemm of a product and a bias of one axis, and its Gemm computes
    in FP32 unless what it gives is quantised."""
    product = node.outputs[0]
    readers = [reader for reader, _ in product.uses()]
    if len(readers) != 1 or readers[0].op_type != "Add" or product.shape is None or len(product.shape) < 3:
        return
    for index, value in enumerate(readers[0].inputs):
        bias = constant(value)
        if bias is not None and bias.ndim == 1:
            readers[0].replace_input_with(index, initializer(work.graph, f"{label(node)}/bias", bias[None, None]))


def _scales(scales: NDArray[np.float64], placement: Placement) -> NDArray[np.float32]:
    """Scales as FP32. For TensorRT they are rounded up to numbers that FP16 holds, so that rounding clips nothing."""
    if placement not in ON_TENSORRT:
        return scales.astype(np.float32)
    half = np.maximum(scales, _SMALLEST_SCALE).astype(np.float16)
    larger = np.where(half.astype(np.float64) < scales, np.nextafter(half, np.float16(np.inf)), half)
    return np.asarray(larger, np.float32)


def _check_names(model: ir.Model, exclude: Sequence[str]) -> None:
    names = [node.name or "" for node in model.graph]
    for glob in exclude:
        if not fnmatch.filter(names, glob):
            raise ModelError(
                f"--keep {glob} matches no node of the model.", "rtformer-deploy inspect names its operators; * stands for anything."
            )


def _describe(value: ir.Value, name: str, dtype: ir.DataType, like: ir.Value) -> None:
    value.name, value.dtype, value.shape = name, dtype, like.shape
