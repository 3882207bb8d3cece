"""Types and shapes of a graph's values, as onnx infers them from those of its inputs.

onnx-ir's own pass takes a sequence of tensors, or a tensor that may be missing, for a tensor. No runtime opens such a model.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

_NO_TENSORS = ("seq(", "optional(")


def infer_types(model: ir.Model, *, strict: bool = True) -> ir.Model:
    """Fills in the types and shapes that follow from the inputs', and leaves the others open; changes the model.

    A value that is no tensor gets no type. With `strict` nothing is filled in if one operator contradicts another.
    """
    ShapeInferencePass(check_type=strict, strict_mode=strict)(model)
    for node in model.graph.all_nodes():
        for value in node.outputs:
            if isinstance(value.type, ir.TensorType) and not is_tensor(model, value):
                value.type, value.shape = None, None
    return model


def is_tensor(model: ir.Model, value: ir.Value) -> bool:
    """Whether a value is a tensor, and not a sequence or an optional, going by the operator that makes it."""
    current: ir.Value | None = value
    while current is not None and (node := current.producer()) is not None and node.domain == "":
        index = current.index() or 0
        if node.op_type == "Identity":
            current = node.inputs[0]
        elif node.op_type in ("If", "Loop"):
            current = _handed_on(node, index)
        else:
            return _gives_tensor(model, node, index)
    return current is None or current.type is None or isinstance(current.type, ir.TensorType)


def _gives_tensor(model: ir.Model, node: ir.Node, index: int) -> bool:
    """Whether an operator may give a tensor as this output; those that onnx does not know may."""
    try:
        outputs = onnx.defs.get_schema(node.op_type, model.opset_imports.get("", 1), "").outputs
    except onnx.defs.SchemaError:
        return True
    return not outputs or not all(kind.startswith(_NO_TENSORS) for kind in outputs[min(index, len(outputs) - 1)].types)


def _handed_on(node: ir.Node, index: int) -> ir.Value | None:
    """What the body of an If or Loop gives for one of its outputs; a Loop's body gives the condition first."""
    name, skipped = ("then_branch", 0) if node.op_type == "If" else ("body", 1)
    body = node.attributes[name].as_graph() if name in node.attributes else None
    return None if body is None or index + skipped >= len(body.outputs) else body.outputs[index + skipped]
