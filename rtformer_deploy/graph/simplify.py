"""Folds constants and merges nodes with onnxsim; the `rtformer` nodes and their functions stay as they are."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from ..errors import ModelError


def simplify(model: ir.Model) -> ir.Model:
    """An onnx_ir.Model -> the same function with fewer nodes, and the same metadata. Raises ModelError where they differ."""
    import onnxsim  # here, because a machine that only builds and runs engines never simplifies

    proto = ir.serde.serialize_model(model)
    simplified, same = onnxsim.simplify(proto)
    if not same:
        raise ModelError(
            "The simplified model does not give what the exported model gives.", "Report this with the recipe and the package versions."
        )
    del simplified.metadata_props[:]
    onnx.helper.set_model_props(simplified, dict(model.metadata_props))
    return ir.serde.deserialize_model(simplified)
