"""Raises a model's opset, so that a pass may use what newer operators can do."""

from __future__ import annotations

import onnx
import onnx.version_converter
import onnx_ir as ir

from ..errors import ModelError, first_line

#: From here on QuantizeLinear and DequantizeLinear take FP16 scales.
HALF_SCALES = 19
#: Before it a Resize did not say how coordinates correspond, and onnx's converter assumes another way.
_EARLIEST = 11
#: Up to HALF_SCALES nothing changes from here on but what an operator may do further.
_COMPATIBLE = 18
#: The file format that came with opset 19.
_IR_VERSION = 9


def raise_opset(model: ir.Model, version: int = HALF_SCALES) -> ir.Model:
    """Makes a model use at least this opset (at most HALF_SCALES); changes the model.

    Raises ModelError if an operator has no newer form.
    """
    assert version <= HALF_SCALES
    current = model.opset_imports.get("", version)
    if current >= version:
        return model
    if current < _EARLIEST:
        what = f"The model has opset {current}, which cannot be raised to {version} without changing what a Resize computes."
        raise ModelError(what, f"Export it again with opset {_EARLIEST} or newer.")
    if current < _COMPATIBLE:
        _convert(model, version)
    model.opset_imports[""] = version
    model.ir_version = max(model.ir_version, _IR_VERSION)
    for function in model.functions.values():
        if "" in function.opset_imports:
            function.opset_imports[""] = max(function.opset_imports[""], version)
    return model


def _convert(model: ir.Model, version: int) -> None:
    try:
        proto = onnx.version_converter.convert_version(ir.serde.serialize_model(model), version)
        newer = ir.serde.deserialize_model(proto)
    except Exception as error:  # the converter raises RuntimeError and others
        current = model.opset_imports[""]
        raise ModelError(
            f"The model's opset {current} cannot be raised to {version}: {first_line(error)}", f"Export it with opset {version} or newer."
        ) from error
    model.graph = newer.graph
