"""How much a model computes and holds: multiplications for one image, and parameters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from .clean import infer_shapes
from .edit import clone
from .functions import inline_functions
from .weights import weight_of


@dataclass(frozen=True, slots=True)
class Work:
    """Multiplications for one image: `macs` with weights, in convolutions and linear layers; `products` of two activations, in attention.

    None if the graph does not say a size that they depend on. `parameters` are the numbers that the model holds in floating point.
    """

    macs: int | None
    products: int | None
    parameters: int


def work_of(model: ir.Model) -> Work:
    """A model -> its work; it does not change. Bodies of If, Loop and Scan are left out."""
    whole = infer_shapes(inline_functions(clone(model)))
    layers = [node for node in whole.graph if node.op_type == "Conv" or weight_of(node) is not None]
    others = [node for node in whole.graph if node.domain == "" and node.op_type == "MatMul" and weight_of(node) is None]
    return Work(
        macs=sum(map(multiplications, layers)) if all(map(_is_known, layers)) else None,
        products=sum(map(_products, others)) if all(map(_is_known, others)) else None,
        parameters=sum(map(_floats, model.graph.initializers.values())),
    )


def multiplications(node: ir.Node) -> int:
    """The multiplications of a convolution or a linear layer for one image; unknown dimensions count as one."""
    counted = node.inputs[0] if node.op_type == "ConvTranspose" else node.outputs[0]  # where each weight is used once
    found, shape = weight_of(node), None if counted is None else counted.shape
    weight = node.inputs[1 if found is None else found.index]
    if weight is None or weight.shape is None:
        return 0
    inner = [] if shape is None else list(shape)[2:] if "Conv" in node.op_type else list(shape)[1:-1]
    return _product([*weight.shape, *inner])


def _products(node: ir.Node) -> int:
    """The multiplications of two activations, (N, ..., M, K) and (N, ..., K, L), for one image."""
    left, result = (list(_shape(value)) for value in (node.inputs[0], node.outputs[0]))
    return _product([*result[1:], *left[-1:]])


def _is_known(node: ir.Node) -> bool:
    """Whether the graph says the sizes that a node's multiplications depend on; how many images there are is not one of them."""
    return all(_shape(value) and all(isinstance(side, int) for side in _shape(value)[1:]) for value in (*node.inputs[:2], *node.outputs))


def _shape(value: ir.Value | None) -> tuple[object, ...]:
    return () if value is None or value.shape is None else tuple(value.shape)


def _product(sides: Iterable[object]) -> int:
    return int(np.prod([side for side in sides if isinstance(side, int)], dtype=np.int64))


def _floats(value: ir.Value) -> int:
    tensor = value.const_value
    return tensor.size if tensor is not None and tensor.dtype.is_floating_point() else 0
