"""Why a node whose inputs are finite gives NaN or infinity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

_WEIGHTS = "Train or export the model again; its weights are broken."
_VALUES = "The weights are sound; the network's arithmetic is not at such values: guard it (a clamp, a larger epsilon) and export it again."


def cause(node: ir.Node, inputs: Mapping[str, NDArray[Any]]) -> tuple[str, str]:
    """A node and what it read (by name; its constants are known) -> the likely cause in words, and what to do about it."""
    arrays = [_array(value, inputs) for value in node.inputs]
    for value, array in zip(node.inputs, arrays, strict=True):
        if value is not None and value.const_value is not None and array is not None and not np.isfinite(array).all():
            kind = "NaN" if np.isnan(array).any() else "infinity"
            return f"its weight {value.name} holds {kind}", _WEIGHTS
    what = f"{node.op_type} {node.name or ''}".strip()
    if node.op_type == "BatchNormalization" and len(arrays) == 5 and arrays[4] is not None and (arrays[4] < 0).any():
        return f"the variance of {what} is negative", _WEIGHTS
    if any(attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attribute in node.attributes.values()):
        return f"it comes from the body of {what}", _VALUES
    half = node.outputs[0].dtype == ir.DataType.FLOAT16
    return f"{what} {_arithmetic(node.op_type, arrays, np.float16 if half else np.float32)}", _VALUES


def _arithmetic(operator: str, arrays: list[NDArray[Any] | None], dtype: type[np.floating[Any]]) -> str:
    """What an operator did with such numbers."""
    first = arrays[0] if arrays else None
    second = arrays[1] if len(arrays) > 1 else None
    if operator == "Log":
        return "takes the logarithm of 0" if first is None or not (first < 0).any() else "takes the logarithm of a negative number"
    if operator == "Sqrt":
        return "takes the root of a negative number"
    if operator in ("Div", "Mod") and (second is None or (second == 0).any()):
        return "divides by zero"
    if operator == "Reciprocal":
        return "divides by zero"
    if operator == "Pow" and first is not None:
        return "raises 0 to a negative power" if (first == 0).any() else "raises a negative number to a broken power"
    if operator in ("Asin", "Acos", "Acosh", "Atanh"):
        return "is given a number outside its domain"
    return f"gives more than FP{np.dtype(dtype).itemsize * 8} holds ({np.finfo(dtype).max:.1e})"


def _array(value: ir.Value | None, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any] | None:
    if value is None:
        return None
    return inputs.get(str(value.name)) if value.const_value is None else value.const_value.numpy()
