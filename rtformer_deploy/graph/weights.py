"""Which input of an operator is its weight, and along which axis of it the output channels lie.

| operator      | weight                  | output channels                                              |
|---------------|-------------------------|--------------------------------------------------------------|
| Conv          | (C_out, C_in/g, k...)   | axis 0, in one, two and three dimensions alike               |
| ConvTranspose | (C_in, C_out/g, k...)   | axis 1; the groups share the entries of this axis            |
| Gemm          | either matrix           | the axis that is not summed over: transA and transB turn it  |
| MatMul        | either, (..., K, N)     | the last axis on the right side, the last but one on the left |
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from .edit import constant

#: The operators that multiply by weights.
WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


@dataclass(frozen=True, slots=True)
class Weight:
    """A node's weight: the input `index` holds it, the input `data` what it is multiplied by; `axis` is that of the output channels.

    `outputs` and `inputs` count the channels on both sides.
    """

    index: int
    data: int
    axis: int
    outputs: int
    inputs: int


def weight_of(node: ir.Node) -> Weight | None:
    """A node -> where its constant weight is; None if it has none, or if both of its factors are constants."""
    if node.domain != "" or node.op_type not in WEIGHTED:
        return None
    arrays = [constant(value) for value in node.inputs[:2]]
    sides = [index for index, array in enumerate(arrays) if array is not None]
    if len(sides) != 1 or (node.op_type in ("Conv", "ConvTranspose") and sides != [1]):
        return None
    index = sides[0]
    array = arrays[index]
    assert array is not None
    if array.ndim < 2:  # a vector has no channels of its own
        return None
    axis, summed = _axes(node, index, array.ndim)
    group = node.attributes["group"].as_int() if "group" in node.attributes else 1
    outputs, inputs = int(array.shape[axis]), int(array.shape[summed])
    if node.op_type == "Conv":
        inputs *= group
    elif node.op_type == "ConvTranspose":
        outputs *= group
    return Weight(index, 1 - index, axis, outputs, inputs)


def output_axis(node: ir.Node, index: int, rank: int) -> int:
    """The axis of the output channels in a node's weight, its input `index`, of `rank` dimensions."""
    return _axes(node, index, rank)[0]


def _axes(node: ir.Node, index: int, rank: int) -> tuple[int, int]:
    """The axis of the output channels, and the one that is summed over."""
    if node.op_type == "Conv":
        return 0, 1
    if node.op_type == "ConvTranspose":
        return 1, 0
    last = (rank - 1, rank - 2) if index == 1 else (rank - 2, rank - 1)
    turned = node.op_type == "Gemm" and _flag(node, "transB" if index == 1 else "transA")
    return last[::-1] if turned else last


def _flag(node: ir.Node, name: str) -> bool:
    return name in node.attributes and node.attributes[name].as_int() != 0
