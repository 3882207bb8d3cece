"""Which operators of a model eight bits make faster without much loss, for each placement of Q/DQ pairs (see `qdq`)."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Sequence
from typing import Literal

import onnx_ir as ir

from .edit import constant
from .functions import DOMAIN
from .weights import Weight, weight_of

Placement = Literal["tensorrt", "tensorrt-fp8", "openvino", "onnxruntime"]
ON_TENSORRT: frozenset[Placement] = frozenset({"tensorrt", "tensorrt-fp8"})

_FEWEST = 16  # channels, unless they are a multiple of 8
_FP8_WINDOW = 32  # the most values of a channel that an FP8 kernel looks at


def quantizable(node: ir.Node, model: ir.Model, exclude: Sequence[str] = (), placement: Placement = "tensorrt") -> bool:
    """Whether a node is a convolution or matrix product that INT8 makes faster without much loss.

    Left out: dynamic weights, fewer than 16 channels (unless a multiple of 8), neighbours of an `rtformer` node, whose values are too fine,
    the classifier's last convolution, what the placement's builder computes in FP32 anyway, and names that match a glob in `exclude`.
    """
    weight = weight_of(node)
    return weight is not None and why_not(node, weight, model, exclude, placement) is None


def why_not(node: ir.Node, weight: Weight, model: ir.Model, exclude: Sequence[str], placement: Placement) -> str | None:
    """Why an operator with a weight stays out of INT8; None if it does not."""
    if any(fnmatch.fnmatchcase(node.name or "", glob) for glob in exclude):
        return "excluded by --keep"
    if any(channels < _FEWEST and channels % 8 for channels in (weight.outputs, weight.inputs)):
        return f"with fewer than {_FEWEST} channels"
    data = data_of(node)
    producer = None if data is None else data.producer()
    readers = [reader for reader, _ in node.outputs[0].uses()]
    if (producer is not None and producer.domain == DOMAIN) or any(reader.domain == DOMAIN for reader in readers):
        return "beside an attention, whose values are too fine"
    if placement == "onnxruntime" and (node.op_type == "ConvTranspose" or weight.index == 0):
        return "for which ONNX Runtime has no eight-bit kernel"
    if placement == "tensorrt-fp8" and (why := _why_not_fp8(node, weight)) is not None:
        return why
    return "the last before the output" if _is_last(node, model) else None


def _why_not_fp8(node: ir.Node, weight: Weight) -> str | None:
    """Why TensorRT has no FP8 kernel for an operator, as NVIDIA's ModelOpt knows it; None if it has."""
    array = constant(node.inputs[weight.index])
    assert array is not None
    if node.op_type == "ConvTranspose" or ("group" in node.attributes and node.attributes["group"].as_int() > 1):
        return "transposed or in groups, for which TensorRT has no FP8 kernel"
    if weight.outputs % _FEWEST or weight.inputs % _FEWEST:
        return f"whose channels are no multiples of {_FEWEST}"
    window = math.prod(array.shape[2:])
    return f"with windows of more than {_FP8_WINDOW} values" if node.op_type == "Conv" and window > _FP8_WINDOW else None


def data_of(node: ir.Node) -> ir.Value | None:
    """What an operator multiplies by its weight."""
    weight = weight_of(node)
    return node.inputs[0 if weight is None else weight.data]


def _is_last(node: ir.Node, model: ir.Model) -> bool:
    """Whether an operator is the classifier: no other one with weights is between it and the model's output."""
    seen: set[ir.Node] = set()
    queue = [output.producer() for output in model.graph.outputs]
    while queue:
        current = queue.pop()
        if current is node:
            return True
        if current is None or current in seen or current.op_type == "Conv" or weight_of(current) is not None:
            continue
        seen.add(current)
        queue += [value.producer() for value in current.inputs if value is not None]
    return False
