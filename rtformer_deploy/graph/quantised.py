"""Whether a model was quantised before it came here, and by which form of operators."""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir

from ..errors import ModelError
from .edit import all_nodes

_QDQ = frozenset({"QuantizeLinear", "DequantizeLinear"})
#: Operators that compute in eight bits themselves.
_EIGHT_BIT = frozenset({"ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"})
_PREFIXES = ("QLinear", "QGemm", "QAttention", "MatMulIntegerToFloat", "DynamicQuantize", "MatMulNBits")


def quantised(model: ir.Model) -> str | None:
    """A model -> how it is quantised, in words; None if it is not."""
    counts = Counter(node.op_type for node in all_nodes(model) if _is_quantised(node))
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or None


def refuse_quantised(model: ir.Model, what: str = "--int8") -> None:
    """Raises ModelError if a model is quantised already, so that `what` has nothing to do."""
    found = quantised(model)
    if found is not None:
        raise ModelError(
            f"The model is quantised already ({found}): {what} is for models in floating point.",
            f"Leave {what} out: the engine keeps the eight bits that the model has. Or give the model from before it was quantised.",
        )


def _is_quantised(node: ir.Node) -> bool:
    return node.op_type in _QDQ or node.op_type in _EIGHT_BIT or node.op_type.startswith(_PREFIXES)
