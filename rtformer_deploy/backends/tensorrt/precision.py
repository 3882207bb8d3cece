"""The precision of a parsed, strongly typed network, read before any kernel is chosen."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ...types import PrecisionFound, PrecisionName
from ..verdict import describe, judge

_COMPUTE = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY", "EINSUM")
_MOVING = ("SHUFFLE", "UNSQUEEZE", "SQUEEZE")  # the parser puts them before a convolution in one dimension
_NAMES = {"FLOAT": "fp32", "HALF": "fp16", "INT8": "int8", "BF16": "bf16", "FP8": "fp8"}


def precision_ahead(trt: Any, network: Any, asked: PrecisionName, mixed: bool = False) -> PrecisionFound:
    """A strongly typed network -> `requested`, or `mismatch` if its layers' types already rule out the precision that was asked for.

    A layer computes in the type of its output or, after a dequantise layer, in that layer's input type. So an "fp16" build that would
    silently be FP32 is detected without a GPU.
    """
    counts = layer_types(trt, network)
    text = describe(counts)
    if judge(asked, counts, "gpu", mixed).state == "mismatch":
        return PrecisionFound(asked, "mismatch", counts, f"the network has {text}")
    detail = f"the network has {text}; the plan's own layers are read when it is opened on its GPU"
    return PrecisionFound(asked, "requested", counts, detail)


def layer_types(trt: Any, network: Any) -> dict[str, int]:
    """How many convolutions and matrix products of the network compute in each precision."""
    compute = {getattr(trt.LayerType, name) for name in _COMPUTE if hasattr(trt.LayerType, name)}
    moving = {getattr(trt.LayerType, name) for name in _MOVING if hasattr(trt.LayerType, name)}
    source_types: dict[str, Any] = {}
    counts: Counter[str] = Counter()
    for index in range(network.num_layers):  # in the order of the graph, so a producer comes before its consumers
        layer = network.get_layer(index)
        if layer.type == trt.LayerType.DEQUANTIZE:
            source_types[layer.get_output(0).name] = layer.get_input(0).dtype
        elif layer.type in moving and layer.get_input(0).name in source_types:
            source_types[layer.get_output(0).name] = source_types[layer.get_input(0).name]
        elif layer.type in compute:
            counts[_name(source_types.get(layer.get_input(0).name, layer.get_output(0).dtype))] += 1
    return dict(counts)


def _name(dtype: Any) -> str:
    name = str(dtype.name)
    return _NAMES.get(name, name.lower())
