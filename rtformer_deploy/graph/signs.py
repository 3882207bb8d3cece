"""Finds the tensors of a graph that are never negative: what a ReLU or sigmoid gives, and what poolings, sums, products,
enlargements and concatenations make of such tensors. Unsigned bytes hold them with 255 levels above zero instead of 127."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from .edit import constant

#: Never negative, whatever they read.
_ALWAYS = frozenset({"Abs", "Exp", "HardSigmoid", "Relu", "Sigmoid", "Softmax"})
#: As what they read first: they choose, move or average its values.
_AS_FIRST = frozenset(
    {"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"}
    | {"DepthToSpace", "Dropout", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "SpaceToDepth", "Split"}
    | {"Squeeze", "Tile", "Transpose", "Unsqueeze", "Upsample"}
)
#: If all that they read is.
_OF_ALL = frozenset({"Add", "Concat", "Div", "Min", "Mul", "Sum"})


def never_negative(graph: ir.Graph) -> set[ir.Value]:
    """The values of a graph's nodes, in their order, that cannot be below zero."""
    found: set[ir.Value] = set()
    for node in graph:
        if node.domain == "" and _is_never_negative(node, found):
            found.update(node.outputs)
    return found


def _is_never_negative(node: ir.Node, found: Collection[ir.Value]) -> bool:
    kind, inputs = node.op_type, [value for value in node.inputs if value is not None]
    if kind in _ALWAYS:
        return True
    if kind in _AS_FIRST or (kind == "Resize" and _stays_between(node)):
        return inputs[0] in found
    if kind in _OF_ALL:
        return all(_is_at_least_zero(value, found) for value in inputs)
    if kind == "Max":
        return any(_is_at_least_zero(value, found) for value in inputs)
    if kind == "Clip":  # x, least, largest
        return len(node.inputs) > 1 and _is_at_least_zero(node.inputs[1], found)
    return False


def _is_at_least_zero(value: ir.Value | None, found: Collection[ir.Value]) -> bool:
    """Whether a value is known to be never negative, or is a constant without a negative number."""
    if value in found:
        return True
    array = constant(value)
    return array is not None and array.size > 0 and bool((array >= 0).all())


def _stays_between(node: ir.Node) -> bool:
    """Whether a Resize gives values between those around: a cubic one overshoots, and a cropping one adds a number of its own."""
    modes = [node.attributes[name].as_string() for name in ("mode", "coordinate_transformation_mode") if name in node.attributes]
    return "cubic" not in modes and "tf_crop_and_resize" not in modes
