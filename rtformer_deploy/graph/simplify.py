"""Folds constants and merges nodes with onnxsim; the `rtformer` nodes and their functions stay as they are."""

from __future__ import annotations

import onnx_ir as ir

from ..errors import ModelError

#: Rewrites of onnxsim that are left out: the first three merge layers into operators of ONNX Runtime's own or into one layer, depending
#: on the weights and the batch, so that tensors would lose their names; the others put a Gemm between two Reshapes for each linear layer.
_LEFT_OUT = [
    "fuse_attention",
    "fuse_gqa",
    "fuse_qkv",
    "fuse_matmul_add_bias_into_gemm",
    "fuse_matmul_add_bias_into_gemm_batched",
]


def simplify(model: ir.Model) -> ir.Model:
    """Replaces a model's graph by a smaller one that computes the same, and keeps the metadata; changes the model.

    Raises ModelError if the simplified graph computes something else, or has operators that not every builder knows; the model then
    stays as it was.
    """
    import onnxsim  # here, because a machine that only builds and runs engines never simplifies

    proto = ir.serde.serialize_model(model)
    simplified, same = onnxsim.simplify(proto, skipped_optimizers=_LEFT_OUT)
    if not same:
        raise ModelError(
            "The simplified model does not give what the exported model gives.", "Report this with the recipe and the package versions."
        )
    smaller = ir.serde.deserialize_model(simplified)
    strange = {node.domain for node in smaller.graph} - {node.domain for node in model.graph} - {""}
    if strange:
        raise ModelError(
            f"Simplifying the model wrote operators of {', '.join(sorted(strange))}, which not every builder knows.",
            "Report this with the recipe and the version of onnxsim.",
        )
    model.graph = smaller.graph
    model.functions.clear()
    model.functions.update(smaller.functions)
    return model
