"""Computes the weights that a graph makes from constants alone, such as a transposed or cast initializer."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ..formats.model_file import serialize_model
from .bodies import bodies
from .edit import clone, constant, initializer
from .run import run_model
from .weights import WEIGHTED

#: Nodes that are no constants though they read none but constants; dequantised weights are what a quantised model is made of.
_NEVER = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial", "DequantizeLinear"}
)


def fold_weights(model: ir.Model) -> ir.Model:
    """Replaces what convolutions and matrix products read, if only constants go into it, by an initializer; changes the model."""
    wanted: dict[str, ir.Value] = {}
    known: dict[ir.Node, bool] = {}
    for node in model.graph:
        if node.op_type not in WEIGHTED or node.domain != "":
            continue
        for value in node.inputs[:2]:
            if value is not None and constant(value) is None and _is_fixed(value, known):
                wanted[str(value.name)] = value
    if not wanted:
        return model
    for name, array in run_model(_part(model, wanted), {}).items():
        ir.convenience.replace_all_uses_with(wanted[name], initializer(model.graph, f"{name}/folded", array))
    RemoveUnusedNodesPass()(model)
    return model


def _is_fixed(value: ir.Value, known: dict[ir.Node, bool]) -> bool:
    """Whether a value follows from constants alone."""
    if constant(value) is not None:
        return True
    node = value.producer()
    if node is None or node.domain != "" or node.op_type in _NEVER or value.is_graph_output():
        return False
    if node not in known:
        known[node] = next(bodies(node), None) is None and all(each is None or _is_fixed(each, known) for each in node.inputs)
    return known[node]


def _part(model: ir.Model, wanted: dict[str, ir.Value]) -> bytes:
    """The part of a model that computes the wanted values."""
    part = clone(model)
    values = {output.name: output for node in part.graph for output in node.outputs}
    part.graph.outputs.clear()
    part.graph.outputs.extend(values[name] for name in wanted)
    RemoveUnusedNodesPass()(part)
    for value in list(part.graph.inputs):
        part.graph.inputs.remove(value)
    part.functions.clear()
    return serialize_model(part)
