"""Changes the float type that a node's attributes name: what Cast casts to, what ConstantOfShape and its like make."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

#: The attribute that names the type of what an operator makes.
_TYPE_ATTRIBUTES = {
    "Cast": "to",
    "Bernoulli": "dtype",
    "EyeLike": "dtype",
    "Multinomial": "dtype",
    "RandomNormal": "dtype",
    "RandomNormalLike": "dtype",
    "RandomUniform": "dtype",
    "RandomUniformLike": "dtype",
    "SequenceEmpty": "dtype",
    "BlackmanWindow": "output_datatype",
    "HammingWindow": "output_datatype",
    "HannWindow": "output_datatype",
    "MelWeightMatrix": "output_datatype",
    "DequantizeLinear": "output_dtype",
}
#: Operators that make FP32 if that attribute is missing; of the others, most take the type of their input.
_FP32_UNASKED = frozenset({"RandomNormal", "RandomUniform", "BlackmanWindow", "HammingWindow", "HannWindow", "MelWeightMatrix"})


def retype_attributes(node: ir.Node, old: ir.DataType, new: ir.DataType) -> None:
    """Makes a node that makes tensors of the type `old` make them of `new`; changes the node."""
    if node.domain != "":
        return
    name = _TYPE_ATTRIBUTES.get(node.op_type)
    if name is not None:
        asked = node.attributes[name].as_int() if name in node.attributes else None
        if asked == old or (asked is None and node.op_type in _FP32_UNASKED and old == ir.DataType.FLOAT):
            node.attributes[name] = ir.AttrInt64(name, new)
    elif node.op_type == "ConstantOfShape" and "value" not in node.attributes and old == ir.DataType.FLOAT:
        node.attributes["value"] = ir.AttrTensor("value", ir.tensor(np.zeros(1, new.numpy())))
    elif node.op_type in ("Constant", "ConstantOfShape") and "value" in node.attributes:
        tensor = node.attributes["value"].as_tensor()
        if tensor.dtype == old:
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(tensor.numpy().astype(new.numpy()), name=tensor.name))
