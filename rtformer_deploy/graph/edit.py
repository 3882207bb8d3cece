"""What the passes share: the copy that they may change, and constants.

Every pass of this room changes the model that it is given and returns it (onnx-ir calls that an in-place pass). Whoever still needs
the model as it was gives the passes a `clone`. A pass replaces initializers; it never renames one or writes into its tensor, which the
clone shares with its original.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from ..errors import ModelError


def clone(model: ir.Model) -> ir.Model:
    """A model -> a copy that passes may change: graph, functions and metadata are its own, the tensors are shared, not copied.

    onnx-ir's own `Model.clone` leaves both models one type object a value, and setting `Value.dtype` writes into it.
    """
    own = model.clone()
    for value in _values(own):
        value.type = copy.copy(value.type)
    return own


def initializer(graph: ir.Graph, name: str, array: NDArray[Any]) -> ir.Value:
    """Adds an array to a graph as an initializer of this name, and returns its value. Raises ModelError if the name is taken."""
    if name in graph.initializers:
        raise ModelError(f"The model already has a constant named {name}.", "Do two of its nodes have one name? Rename one of them.")
    tensor = ir.tensor(np.asarray(array), name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
    graph.register_initializer(value)
    return value


def lift_constants(model: ir.Model) -> ir.Model:
    """Makes initializers of the tensors in Constant nodes; changes the model.

    Each gets a tensor of its own: serialising a model calls its initializers' tensors what the initializers are called, and the model
    that this one was cloned from still has the Constant.
    """
    LiftConstantsToInitializersPass(lift_all_constants=False, size_limit=0)(model)
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None and value.const_value.name != value.name:
                value.const_value = ir.serde.deserialize_tensor(ir.serde.serialize_tensor(value.const_value))
                value.const_value.name = value.name
    return model


def constant(value: ir.Value | None) -> NDArray[Any] | None:
    """The array that a value always has; None if it is computed, or missing."""
    return None if value is None or value.const_value is None else value.const_value.numpy()


def label(node: ir.Node) -> str:
    """A name to call new tensors after: the node's own, or its first output's if it has none."""
    return node.name or str(node.outputs[0].name)


def _values(model: ir.Model) -> Iterator[ir.Value]:
    """Everything that has a type, in subgraphs and functions too; an input with a default comes twice."""
    parts: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for part in parts:
        yield from part.inputs
        for node in part.all_nodes():
            yield from node.outputs
    for graph in model.graphs():
        yield from graph.inputs
        yield from graph.initializers.values()
