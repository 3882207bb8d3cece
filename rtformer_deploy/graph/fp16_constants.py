"""Makes the constants of an FP32 graph fit FP16: clamps what only stands for "very much" or "almost nothing", and says what does not fit.

A mask of -1e9 before a softmax means the same as one of -32752. A factor of 3e5 does not: what reads it stays in FP32.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..formats.ranges import has_scale
from .edit import constant, initializer
from .weights import weight_of

LARGEST = float(np.finfo(np.float16).max)
SMALLEST = 2.0**-24
SMALLEST_NORMAL = 2.0**-14
#: What a mask that is added becomes: half of what FP16 holds, so that adding a score to it stays finite.
_ADDED = LARGEST / 2

#: Operators that compare, so that anything beyond FP16's range is as good as its end.
_BOUNDS = frozenset({"Clip", "Max", "Min", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"})
#: Operators after which a very large or very small number has had its effect.
_ENDS = _BOUNDS | {"Softmax", "LogSoftmax", "Hardmax", "Sigmoid", "Exp", "Tanh", "ReduceMax", "ReduceMin", "MaxPool", "GlobalMaxPool"} | {
    "ArgMax", "ArgMin", "TopK", "Shape", "Size"
}  # fmt: skip
#: Operators that hand a mask on as it is, or add it to something.
_PASSES = frozenset({
    "Where", "Add", "Sub", "Mul", "Neg", "Expand", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Flatten", "Concat", "Slice", "Gather",
    "Tile", "Identity", "Cast", "Split", "ScatterND", "ScatterElements", "Pad", "Dropout",
})  # fmt: skip
_PRODUCTS = frozenset({"Mul", "Div", "Pow", "Reciprocal"})


@dataclass(slots=True)
class Fitted:
    """What became of the constants: the names that were `clamped`, the nodes that stay `fp32` (with the name of the constant), and the
    nodes between a mask and its end, `masks`, whose values are large on purpose."""

    clamped: list[str] = field(default_factory=list)
    fp32: dict[ir.Node, str] = field(default_factory=dict)
    masks: set[ir.Node] = field(default_factory=set)


def fit_constants(graph: ir.Graph, nodes: Iterable[ir.Node], free: Collection[ir.Node]) -> Fitted:
    """Replaces the constants that `nodes` of the graph read and FP16 cannot hold; changes the graph.

    Those in `free` compute in FP32 anyway, so only their masks are clamped, as the rest of the graph reads them in FP16.
    """
    fitted = Fitted()
    copies: dict[tuple[str, float], ir.Value] = {}
    for node in nodes:
        if node.op_type == "ConstantOfShape":
            _fit_filler(node, fitted)
        for index, value in enumerate(node.inputs):
            array = constant(value)
            if value is None or array is None or array.dtype != np.float32:
                continue
            largest = float(np.abs(array[np.isfinite(array)]).max(initial=0.0))
            weight = weight_of(node)
            is_weight = weight is not None and weight.index == index
            if largest > LARGEST and not is_weight:  # such a weight is an error, unless its node stays in FP32 for another reason
                _fit_large(graph, node, index, array, fitted, copies)
            elif 0 < largest < SMALLEST_NORMAL and node not in free:
                _fit_small(graph, node, index, array, fitted, copies)
    return fitted


def _fit_large(
    graph: ir.Graph, node: ir.Node, index: int, array: NDArray[np.float32], fitted: Fitted, copies: dict[tuple[str, float], ir.Value]
) -> None:
    value = node.inputs[index]
    assert value is not None
    path = set() if node.op_type in _BOUNDS else _mask_path(node, index, array)
    if path is None:
        fitted.fp32[node] = str(value.name)
        return
    bound = _ADDED if node.op_type in ("Add", "Sub", "Mul") else LARGEST
    limited = np.where(np.isfinite(array), np.clip(array, -bound, bound), array).astype(np.float32)
    node.replace_input_with(index, _copy(graph, str(value.name), bound, limited, copies))
    fitted.clamped.append(str(value.name))
    fitted.masks |= path


def _fit_filler(node: ir.Node, fitted: Fitted) -> None:
    """The same for a mask that ConstantOfShape makes."""
    array = node.attributes["value"].as_tensor().numpy() if "value" in node.attributes else np.zeros(1, np.float32)
    if array.dtype != np.float32 or not LARGEST < np.abs(array).max() < np.inf:
        return
    path = _path_to_ends(node)
    if path is not None:
        node.attributes["value"] = ir.AttrTensor("value", ir.tensor(np.clip(array, -_ADDED, _ADDED)))
        fitted.clamped.append(str(node.outputs[0].name))
        fitted.masks |= path


def _fit_small(
    graph: ir.Graph, node: ir.Node, index: int, array: NDArray[np.float32], fitted: Fitted, copies: dict[tuple[str, float], ir.Value]
) -> None:
    """A number that FP16 rounds to zero: an epsilon becomes FP16's smallest number; a factor, and a weight of such numbers, stays FP32."""
    value = node.inputs[index]
    assert value is not None
    weight = weight_of(node)
    if weight is not None and weight.index == index:
        if has_scale(float(np.abs(array).max())):  # else it is as good as zero in FP32, too
            fitted.fp32[node] = str(value.name)
    elif array.size == 1 and abs(float(array.reshape(-1)[0])) < SMALLEST:
        if node.op_type in _PRODUCTS:
            fitted.fp32[node] = str(value.name)
        else:
            node.replace_input_with(index, _copy(graph, str(value.name), SMALLEST, np.copysign(np.float32(SMALLEST), array), copies))


def _copy(graph: ir.Graph, name: str, bound: float, array: NDArray[np.float32], copies: dict[tuple[str, float], ir.Value]) -> ir.Value:
    if (name, bound) not in copies:
        copies[name, bound] = initializer(graph, f"{name}/within_{bound:g}", array)
    return copies[name, bound]


def _mask_path(node: ir.Node, index: int, array: NDArray[np.float32]) -> set[ir.Node] | None:
    """The nodes between a constant and the operators where its size has its effect; None if it is no mask."""
    if node.op_type == "Mul" and not _is_choice(node.inputs[1 - index]):
        return None
    if node.op_type not in _PASSES or (node.op_type == "Where" and index == 0):
        return None
    if node.op_type in ("Add", "Sub") and ((np.abs(array) <= LARGEST) & (array != 0)).any():
        return None  # a table of all sizes, not a mask
    return _path_to_ends(node)


def _path_to_ends(node: ir.Node) -> set[ir.Node] | None:
    """The node, and all that hand its values on until they have had their effect; None if they reach anything else."""
    path: set[ir.Node] = set()
    queue = [node]
    while queue:
        current = queue.pop()
        if current in path:
            continue
        path.add(current)
        for output in current.outputs:
            if output.is_graph_output():
                return None
            for reader, _ in output.uses():
                if reader.op_type in _PASSES and reader.domain == "":
                    queue.append(reader)
                elif reader.op_type not in _ENDS or reader.domain != "":
                    return None
    return path


def _is_choice(value: ir.Value | None) -> bool:
    """Whether a tensor holds only 0 and 1, as far as the graph shows: a truth value as a number, or one minus it."""
    array = constant(value)
    if array is not None:
        return bool(np.isin(array, (0, 1)).all())
    node = None if value is None else value.producer()
    if node is None:
        return False
    if node.op_type == "Cast":
        source = node.inputs[0]
        return source is not None and (source.dtype == ir.DataType.BOOL or _is_choice(source))
    if node.op_type == "Sub":
        ones = constant(node.inputs[0])
        return ones is not None and bool((ones == 1).all()) and _is_choice(node.inputs[1])
    if node.op_type == "Where":
        return all(_is_choice(each) for each in node.inputs[1:3])
    return node.op_type in ("Expand", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Slice") and _is_choice(node.inputs[0])
