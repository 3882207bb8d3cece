"""Changes the output of a model with small logits to full-size logits or labels."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..types import ModelSpec
from .edit import initializer


def set_head(model: ir.Model, spec: ModelSpec) -> ir.Model:
    """Changes the output of a model from `logits` at the network's stride to what `spec.head` and `spec.output` say; changes the model.

    The upsampling is bilinear: with half-pixel centres straight to the frame's size, or with `spec.resize_corners` from corner to corner,
    first to the input's size. Labels are uint8, and a tie goes to the lowest class.
    """
    logits = model.graph.outputs[0]
    if spec.head != "lowres":
        logits.name = _module(logits)
        model.graph.outputs.clear()
        full = _upsampled(model, logits, spec)
        model.graph.outputs.append(full if spec.head == "logits" else _argmax(model, full))
    output = model.graph.outputs[0]
    output.name = spec.output.name
    output.shape = ir.Shape(spec.output.shape)
    output.dtype = ir.DataType.UINT8 if spec.head == "labels" else ir.DataType.FLOAT
    return model


def _upsampled(model: ir.Model, logits: ir.Value, spec: ModelSpec) -> ir.Value:
    if not spec.resize_corners:
        return _resize(model, logits, spec, spec.frame_size, "half_pixel")
    full = _resize(model, logits, spec, spec.size, "align_corners")
    return full if spec.frame_size == spec.size else _resize(model, full, spec, spec.frame_size, "align_corners", "_1")


def _resize(model: ir.Model, logits: ir.Value, spec: ModelSpec, size: tuple[int, int], places: str, number: str = "") -> ir.Value:
    """Logits -> the same at a (height, width) `size`; `number` follows the names of what is added."""
    height, width = size
    batch = spec.input.shape[0]
    if isinstance(batch, int):
        sizes = initializer(model.graph, f"head/sizes{number}", np.array([batch, len(spec.classes), height, width], np.int64))
    else:  # sizes for two axes would be enough, but TensorRT does not take them with a dynamic batch
        start = _append(model, ir.node("Shape", [logits], {"start": 0, "end": 2}), f"head/Shape{number}", ir.DataType.INT64)
        last = initializer(model.graph, f"head/size{number}", np.array([height, width], np.int64))
        sizes = _append(model, ir.node("Concat", [start, last], {"axis": 0}), f"head/Concat{number}", ir.DataType.INT64)
    attributes = {"mode": "linear", "coordinate_transformation_mode": places}
    node = ir.node("Resize", [logits, None, None, sizes], attributes)
    return _append(model, node, f"head/Resize{number}", ir.DataType.FLOAT)


def _argmax(model: ir.Model, logits: ir.Value) -> ir.Value:
    best = _append(model, ir.node("ArgMax", [logits], {"axis": 1, "keepdims": 0}), "head/ArgMax", ir.DataType.INT64)
    # TensorRT casts to uint8 from float only; class ids are exact in float
    number = _append(model, ir.node("Cast", [best], {"to": ir.DataType.FLOAT}), "head/Cast", ir.DataType.FLOAT)
    return _append(model, ir.node("Cast", [number], {"to": ir.DataType.UINT8}), "head/Cast_1", ir.DataType.UINT8)


def _module(value: ir.Value) -> str:
    """The name that `name_tensors` gave to the node that makes a value: its module's."""
    node = value.producer()
    assert node is not None
    assert node.name, "an exported model's nodes are named after their modules"
    return node.name


def _append(model: ir.Model, node: ir.Node, name: str, dtype: ir.DataType) -> ir.Value:
    node.name = node.outputs[0].name = name
    node.outputs[0].dtype = dtype
    model.graph.append(node)
    return node.outputs[0]
