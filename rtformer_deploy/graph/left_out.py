"""Says which operators INT8 leaves out because of where they are."""

from __future__ import annotations

import onnx_ir as ir

from ..errors import shorten
from ..files import printable
from .edit import label
from .notes import add_note
from .weights import weight_of

_NAMED = 5


def tell_bodies(model: ir.Model) -> ir.Model:
    """Notes which operators with weights are in the body of another node; changes the model. Their tensors have no ranges."""
    inside = [label(node) for node in model.graph.all_nodes() if node.graph is not model.graph and weight_of(node) is not None]
    if inside:
        many = "1 operator" if len(inside) == 1 else f"{len(inside)} operators"
        named = ", ".join(shorten(printable(name)) for name in inside[:_NAMED]) + (" ..." if len(inside) > _NAMED else "")
        add_note(model, f"INT8 leaves {many} inside the bodies of If, Loop and Scan in high precision: {named}.")
    return model
