"""Counts a TensorRT engine's layers by precision, from the inspector's JSON.

This only parses text and does not need TensorRT. The runner and the layer times both use it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import EngineError
from ...files import RECORD_BYTES
from ...formats.documents import parse_json

#: Convolutions and matrix products by the names that builders give them: "CaskConvolution", "conv", "gemm", "MatrixMultiply", ...
_COMPUTE = re.compile(r"conv|gemm|gemv|matrix_?mul|matmul|einsum|fully_?connected|attention|\bmha\b|\bfc\b", re.IGNORECASE)
#: The metadata of a layer names the nodes that it was made of.
_NODE = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
#: Layers that only move data: they take any type and say nothing about precision.
_MOVES = re.compile(r"reformat|copy|cast|convert|constant|shuffle|shape|no_?op|identity|slice|gather|concat|signal|wait", re.IGNORECASE)
#: The order matters: "BFloat16" contains "Float16" and "UInt8" contains "Int8".
_TYPES = (
    ("bf16", re.compile(r"\bk?(bf16|bfloat16)\b", re.IGNORECASE)),
    ("fp8", re.compile(r"\bk?(fp8|float8|e4m3|e5m2)", re.IGNORECASE)),
    ("fp4", re.compile(r"\bk?(fp4|float4|e2m1)", re.IGNORECASE)),
    ("int4", re.compile(r"\bk?int4\b", re.IGNORECASE)),
    ("int8", re.compile(r"\bk?int8\b", re.IGNORECASE)),
    ("fp16", re.compile(r"\bk?(fp16|float16|half)\b", re.IGNORECASE)),
    ("fp32", re.compile(r"\bk?(fp32|float32|float)\b", re.IGNORECASE)),
)


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """A layer's kind and precision, and the ONNX node that it computes, the first of several; "" for what nobody says."""

    kind: str = ""
    precision: str = ""
    node: str = ""


def layer_precisions(inspector_json: str) -> dict[str, int]:
    """The JSON of an engine inspector -> how many compute layers work in each precision: {"fp16": 57}.

    Compute layers are convolutions and matrix products; if the builder fused all of them into layers with other names, every layer
    counts that does more than move data. A layer's precision is the type of its first numeric input, else of its weights. Empty if
    the engine reports only layer names (built without detailed profiling). Raises EngineError if the text is not such JSON.
    """
    layers = _layers(inspector_json)
    compute = [layer for layer in layers if _is_compute(layer)] or [layer for layer in layers if not _only_moves(layer)]
    return dict(Counter(name for layer in compute if (name := _precision(layer)) is not None))


def layer_facts(inspector_json: str) -> dict[str, LayerFacts]:
    """The JSON of an engine inspector -> each layer's name with what it says about the layer.

    Empty if the engine reports only layer names. Raises EngineError if the text is not such JSON.
    """
    return {str(layer.get("Name", "")): _facts(layer) for layer in _layers(inspector_json)}


def _facts(layer: Mapping[str, Any]) -> LayerFacts:
    node = _NODE.search(str(layer.get("Metadata", "")))
    return LayerFacts(str(layer.get("LayerType", "")), _precision(layer) or "", "" if node is None else node[1])


def _layers(inspector_json: str) -> list[dict[str, Any]]:
    try:
        return [layer for layer in parse_json(inspector_json, RECORD_BYTES)["Layers"] if isinstance(layer, dict)]
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(f"TensorRT's engine inspector gave no layers that can be read: {error}.") from error


def _is_compute(layer: Mapping[str, Any]) -> bool:
    return not _only_moves(layer) and any(_COMPUTE.search(str(layer.get(key, ""))) for key in ("LayerType", "ParameterType"))


def _only_moves(layer: Mapping[str, Any]) -> bool:
    return any(_MOVES.search(str(layer.get(key, ""))) for key in ("LayerType", "ParameterType"))


def _precision(layer: Mapping[str, Any]) -> str | None:
    return next((name for text in _type_texts(layer) if (name := _type_name(text)) is not None), None)


def _type_texts(layer: Mapping[str, Any]) -> Iterator[str]:
    """The texts that may name the layer's type, the most telling first."""
    for tensor in layer.get("Inputs") or []:
        if isinstance(tensor, dict):
            yield from (str(tensor[key]) for key in ("Format/Datatype", "Datatype", "DataType", "Format") if key in tensor)
    weights = layer.get("Weights")
    if isinstance(weights, dict):
        yield str(weights.get("Type", ""))


def _type_name(text: str) -> str | None:
    return next((name for name, pattern in _TYPES if pattern.search(text)), None)
