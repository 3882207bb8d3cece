"""Puts a model from elsewhere in order, once, on load: what comes out computes the same, and the other passes may rely on its form.

Its functions are written out (but for those of the `rtformer` domain), its opset is one that the passes speak, constants are
initializers and none of them is an input, every node has a name of its own, and what the file declares of shapes is forgotten:
`infer_shapes` finds out what follows from the input's.
"""

from __future__ import annotations

import onnx
import onnx.version_converter
import onnx_ir as ir
from onnx_ir.passes.common import (
    RemoveInitializersFromInputsPass,
    RemoveUnusedNodesPass,
    TopologicalSortPass,
)

from ..errors import ModelError, first_line
from ..formats.tensor_types import infer_types
from .edit import free_name, lift_constants
from .functions import inline_foreign_functions

#: The first opset in which Q/DQ have an axis and every operator takes the arguments that the passes write.
LEAST_OPSET = 13
#: The first opset in which Resize says how coordinates correspond, and rounds by default. Before it they were asymmetric and cut off.
_RESIZE_OPSET = 11
_LEAST_IR = 8  # of files of that opset; from 4 on an initializer need not be an input
_MOST_IR = 10  # newer ones say more about where nodes run and who made them; libraries refuse versions that they do not know


def clean(model: ir.Model, name: str, *, convert: bool = True) -> ir.Model:
    """A model as it was read -> a model in order, which may be another object. Without `convert` it keeps its opset.

    Raises ModelError if it cannot be put in order.
    """
    try:
        inline_foreign_functions(model)
        model = _convert_opset(model) if convert else model
        RemoveInitializersFromInputsPass()(model)
        lift_constants(model, numbers=True)
        TopologicalSortPass()(model)
    except Exception as error:  # onnx and onnx-ir raise anything on a graph that they do not expect
        raise ModelError(f"{name} cannot be put in order: {first_line(error)}") from error
    name_nodes(model)
    forget_shapes(model)
    model.ir_version = min(max(model.ir_version, _LEAST_IR), _MOST_IR)
    return model


def keep_output(model: ir.Model, output: ir.Value) -> ir.Model:
    """Makes one of a model's values its only output, and removes what no longer counts, inputs too; changes the model."""
    model.graph.outputs.clear()
    model.graph.outputs.append(output)
    RemoveUnusedNodesPass()(model)
    for value in [value for value in model.graph.inputs if not value.uses() and not value.is_graph_output()]:
        model.graph.inputs.remove(value)
    return model


def infer_shapes(model: ir.Model) -> ir.Model:
    """Fills in the types and shapes that follow from the inputs', and leaves the others open; changes the model."""
    return infer_types(model, strict=False)


def name_nodes(model: ir.Model) -> ir.Model:
    """Names every node that has no name, or an earlier node's, after its first output; changes the model."""
    used: set[str] = set()
    for node in model.graph.all_nodes():
        base = node.name or next((output.name for output in node.outputs if output.name), None) or node.op_type
        if base in used:
            base = next((output.name for output in node.outputs if output.name), None) or base
        node.name = free_name(base, used)
        used.add(node.name)
    return model


def forget_shapes(model: ir.Model) -> ir.Model:
    """Forgets the shapes that a file declares between its nodes and for its outputs; changes the model."""
    for node in model.graph:
        for output in node.outputs:
            output.shape = None
    return model


def _convert_opset(model: ir.Model) -> ir.Model:
    """A model of an older opset -> the same model in `LEAST_OPSET`, or the model itself if onnx's converter does not know how."""
    if not 1 <= model.opset_imports.get("", LEAST_OPSET) < LEAST_OPSET or model.functions:
        return model
    try:
        converted = onnx.version_converter.convert_version(ir.serde.serialize_model(model), LEAST_OPSET)
        onnx.checker.check_model(converted)
    except Exception:  # the converter raises anything; such a model builds as it is, but not to INT8
        return model
    result = ir.serde.deserialize_model(converted)
    if model.opset_imports[""] < _RESIZE_OPSET:
        _keep_resizes(result)
    result.meta.update(model.meta)
    result.metadata_props.update(model.metadata_props)
    return result


def _keep_resizes(model: ir.Model) -> None:
    """Makes each Resize compute what it did before opset 11: onnx's converter leaves the new defaults."""
    for node in model.graph.all_nodes():
        if node.op_type == "Resize" and node.domain == "":
            node.attributes["coordinate_transformation_mode"] = ir.AttrString("coordinate_transformation_mode", "asymmetric")
            node.attributes["nearest_mode"] = ir.AttrString("nearest_mode", "floor")
