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
    others: set[ir.Value] = set()
    for node in model.graph.all_nodes():
        found = [value for index, value in enumerate(node.outputs) if _is_no_tensor(model, node, index, others)]
        others.update(found)
        for value in found:
            if isinstance(value.type, ir.TensorType):
                value.type, value.shape = None, None
    return model


def _is_no_tensor(model: ir.Model, node: ir.Node, index: int, others: set[ir.Value]) -> bool:
    """Whether an output of a node is a sequence or an optional: by its operator, or because what the node hands on is one."""
    if node.domain != "":
        return False
    if node.op_type == "Identity":
        return node.inputs[0] in others
    if node.op_type in ("If", "Loop"):
        return _handed_on(node, index) in others
    try:
        schema = onnx.defs.get_schema(node.op_type, model.opset_imports.get("", 1), "")
    except onnx.defs.SchemaError:
        return False
    formal = schema.outputs[min(index, len(schema.outputs) - 1)] if schema.outputs else None
    return formal is not None and all(kind.startswith(_NO_TENSORS) for kind in formal.types)


def _handed_on(node: ir.Node, index: int) -> ir.Value | None:
    """What the body of an If or Loop gives for one of its outputs; a Loop's body gives the condition first."""
    name, skipped = ("then_branch", 0) if node.op_type == "If" else ("body", 1)
    body = node.attributes[name].as_graph() if name in node.attributes else None
    return None if body is None or index + skipped >= len(body.outputs) else body.outputs[index + skipped]
