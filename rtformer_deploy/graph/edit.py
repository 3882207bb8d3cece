"""What the passes share: cloning a model, and constants.

Every pass here changes its argument and returns it (onnx-ir calls that an in-place pass). To keep the original model, give the passes a
`clone`. A pass replaces initializers; it never renames one or writes into its tensor, because the clone and the original share tensors.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Container, Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from ..errors import ModelError


def clone(model: ir.Model) -> ir.Model:
    """A model -> a copy that passes may change: graph, functions and metadata are its own, the tensors are shared, not copied.

    After onnx-ir's own `Model.clone` both models share the type objects of values, and setting `Value.dtype` writes into them.
    """
    copied = model.clone()
    for value in all_values(copied):
        value.type = copy.deepcopy(value.type)  # a sequence's holds another
    return copied


def initializer(graph: ir.Graph, name: str, array: NDArray[Any]) -> ir.Value:
    """Adds an array to a graph as an initializer of this name, and returns its value. Raises ModelError if the name is taken."""
    if name in graph.initializers:
        raise ModelError(f"The model already has a constant named {name}.", "Do two of its nodes have one name? Rename one of them.")
    tensor = ir.tensor(np.asarray(array), name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
    graph.register_initializer(value)
    return value


def lift_constants(model: ir.Model, numbers: bool = False) -> ir.Model:
    """Turns the tensors of Constant nodes into initializers, in the bodies of If, Loop and Scan too; changes the model.

    `numbers`: also Constants that are written as plain numbers (value_float, value_ints...).

    Each initializer gets a tensor of its own. Serialising a model renames its initializers' tensors, and the original of a clone still uses
    the tensor in its Constant.
    """
    LiftConstantsToInitializersPass(lift_all_constants=numbers, size_limit=0)(model)
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None and value.const_value.name != value.name:
                value.const_value = ir.serde.deserialize_tensor(ir.serde.serialize_tensor(value.const_value))
                value.const_value.name = value.name
    return model


def constant(value: ir.Value | None) -> NDArray[Any] | None:
    """The array of a value that an initializer or a Constant node holds; None if the value is computed or missing."""
    if value is None:
        return None
    if value.const_value is not None:
        return value.const_value.numpy()
    producer = value.producer()
    return None if producer is None or producer.op_type != "Constant" or producer.domain != "" else _constant_of(producer)


def _constant_of(node: ir.Node) -> NDArray[Any] | None:
    """The array of a Constant node. Not onnx-ir's `get_const_tensor`, which renames a tensor that a clone shares with its original."""
    name, attribute = next(iter(node.attributes.items()), ("", None))
    if attribute is None or attribute.is_ref():
        return None
    if name == "value":
        return attribute.as_tensor().numpy()
    if name in ("value_float", "value_floats"):
        return np.array(attribute.value, np.float32)
    return np.array(attribute.value, np.int64) if name in ("value_int", "value_ints") else None


def free_name(name: str, used: Container[str | None]) -> str:
    """The name, or if it is in use the name with the first number that is free."""
    names = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(1)))
    return next(each for each in names if each not in used)


def label(node: ir.Node) -> str:
    """The node's name, or its first output's if it has none. New tensors are named after it."""
    return node.name or str(node.outputs[0].name)


def all_nodes(model: ir.Model) -> Iterator[ir.Node]:
    """All nodes, also in bodies and functions."""
    for part in _parts(model):
        yield from part.all_nodes()


def _parts(model: ir.Model) -> list[ir.Graph | ir.Function]:
    return [model.graph, *model.functions.values()]


def all_values(model: ir.Model) -> Iterator[ir.Value]:
    """All values, also in subgraphs and functions. An input with a default occurs twice."""
    for part in _parts(model):
        yield from part.inputs
        for node in part.all_nodes():
            yield from node.outputs
    for graph in model.graphs():
        yield from graph.inputs
        yield from graph.initializers.values()
