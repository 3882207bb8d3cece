"""Which inputs and outputs of an operator FP16 cannot have, by ONNX's own definition of the operator."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import onnx
import onnx_ir as ir

#: Inputs that stay FP32 though newer definitions allow FP16: Resize's roi and scales, which are read when the engine is built.
_SHAPE_ARGUMENTS = {"Resize": frozenset({1, 2}), "Upsample": frozenset({1})}


@dataclass(frozen=True, slots=True)
class Pinned:
    """The indices of the inputs and outputs that cannot be FP16."""

    inputs: frozenset[int] = frozenset()
    outputs: frozenset[int] = frozenset()


def everything(node: ir.Node) -> Pinned:
    """All of a node: it computes in FP32."""
    return Pinned(frozenset(range(len(node.inputs))), frozenset(range(len(node.outputs))))


def pinned(node: ir.Node, opset: int) -> Pinned:
    """A node of ONNX's own domain and the model's opset -> what of it stays FP32. An operator that ONNX does not know stays whole."""
    rules = _rules(node.op_type, opset)
    if rules is None:
        return everything(node)
    inputs, outputs = rules
    held = {index for index in range(len(node.inputs)) if inputs and inputs[min(index, len(inputs) - 1)]}
    given = {index for index in range(len(node.outputs)) if outputs and outputs[min(index, len(outputs) - 1)]}
    return Pinned(frozenset(held) | _SHAPE_ARGUMENTS.get(node.op_type, frozenset()), frozenset(given))


@functools.cache
def _rules(operator: str, opset: int) -> tuple[tuple[bool, ...], tuple[bool, ...]] | None:
    """For each formal input and output: whether it may be FP32 but not FP16. The last one may stand for any number."""
    try:
        schema = onnx.defs.get_schema(operator, opset, "")
    except onnx.defs.SchemaError:
        return None
    allowed = {rule.type_param_str: set(rule.allowed_type_strs) for rule in schema.type_constraints}

    def fp32_only(name: str) -> bool:
        kinds = allowed.get(name, {name})
        return "tensor(float)" in kinds and "tensor(float16)" not in kinds

    return tuple(fp32_only(each.type_str) for each in schema.inputs), tuple(fp32_only(each.type_str) for each in schema.outputs)
