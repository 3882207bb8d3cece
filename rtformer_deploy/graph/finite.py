"""Refuses weights that are not numbers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..errors import ModelError
from .edit import all_nodes, constant, label
from .weights import WEIGHTED

#: Operators whose constants are weights. Elsewhere infinity has a meaning, as in a mask before a softmax.
_TRAINED = WEIGHTED | {"BatchNormalization", "InstanceNormalization", "GroupNormalization", "LayerNormalization", "PRelu"}


def refuse_broken_weights(model: ir.Model) -> None:
    """Raises ModelError if a constant that a node reads holds NaN, or a weight holds infinity."""
    finite: set[ir.Value] = set()
    for node in all_nodes(model):
        for value in node.inputs:
            if value is None or value in finite:
                continue
            holds = _holds(value)
            if holds is None:
                finite.add(value)
            elif holds == "NaN" or node.op_type in _TRAINED:
                raise ModelError(
                    f"The weight {value.name} of {node.op_type} {label(node)} holds {holds}: the weights are broken.",
                    "Train or export the model again; no backend computes anything useful with it.",
                )


def _holds(value: ir.Value) -> str | None:
    array = constant(value)
    if array is None or array.dtype.kind != "f" or np.isfinite(array).all():
        return None
    return "NaN" if np.isnan(array).any() else "infinity"
