"""Folds constants and merges nodes with onnxsim; the `rtformer` nodes and their functions stay as they are."""

from __future__ import annotations

import onnx_ir as ir

from ..errors import ModelError


def simplify(model: ir.Model) -> ir.Model:
    """Replaces a model's graph by a smaller one that computes the same, and keeps the metadata; changes the model.

    Raises ModelError if the simplified graph computes something else; the model then stays as it was.
    """
    import onnxsim  # here, because a machine that only builds and runs engines never simplifies

    proto = ir.serde.serialize_model(model)
    simplified, same = onnxsim.simplify(proto)
    if not same:
        raise ModelError(
            "The simplified model does not give what the exported model gives.", "Report this with the recipe and the package versions."
        )
    smaller = ir.serde.deserialize_model(simplified)
    model.graph = smaller.graph
    model.functions.clear()
    model.functions.update(smaller.functions)
    return model
