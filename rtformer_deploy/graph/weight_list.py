"""A graph as `refit` sees it: its weights, which may be exchanged, and all else, which may not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import onnx
import onnx_ir as ir

from ..errors import BuildError, ModelError
from ..files import sha256
from ..formats.subgraphs import bodies
from ..types import Refit, StoredWeight

#: The types of weights and scales. Whole numbers of more bits are shapes and indices, which belong to the graph.
_WEIGHTS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.INT8, ir.DataType.FLOAT8E4M3FN})
_DATA = ("raw_data", "float_data", "int32_data")
#: What says where a model came from, not what it computes.
_ORIGIN = ("producer_name", "producer_version", "domain", "model_version")
_REMARKS = ("doc_string", "metadata_props")
_MOST_NAMED = 20
_MOST_WEIGHTS = 3000


def weights_of(model: ir.Model) -> dict[str, StoredWeight]:
    """A model without functions -> its weights by name: the initializers of the main graph that hold numbers to compute with."""
    return {str(value.name): _stored(tensor) for value, tensor in _weights(model)}


def graph_sha256(model: ir.Model) -> str:
    """The hash of a model without the values of its weights: operators, attributes, names, shapes, types and whole numbers."""
    proto = ir.serde.serialize_model(model)
    names = {str(value.name) for value, _ in _weights(model)}
    for tensor in proto.graph.initializer:
        if tensor.name in names:
            for field in _DATA:
                tensor.ClearField(field)
    for field in (*_ORIGIN, *_REMARKS):
        proto.ClearField(field)
    _clear_remarks(proto.graph)
    return sha256(proto.SerializeToString(deterministic=True))


def refit_of(model: ir.Model, keep: Sequence[str], fp32: Sequence[str]) -> Refit:
    """A graph for a builder, and the globs by which it was made -> what `refit` must know of the stripped plan."""
    weights = weights_of(model)
    if len(weights) > _MOST_WEIGHTS:
        raise BuildError(
            f"--strip: the model has {len(weights)} weights, and a sidecar lists at most {_MOST_WEIGHTS}.", "Leave --strip out."
        )
    return Refit(True, weights, graph_sha256(model), tuple(keep), tuple(fp32))


def check_fit(refit: Refit, model: ir.Model) -> tuple[Refit, frozenset[str]]:
    """What an engine was built from and the graph of another model -> the same with that model's weights, and which of them differ.

    Raises ModelError, listing what differs, unless the two graphs are equal but for these values.
    """
    found = weights_of(model)
    lines = list(_differences(refit.weights, found))
    if not lines and graph_sha256(model) != refit.graph_sha256:
        lines = ["the weights have the same names and shapes, but the operators between them, or their attributes, differ"]
    if lines:
        more = [f"  ... and {len(lines) - _MOST_NAMED} more"] * (len(lines) > _MOST_NAMED)
        raise ModelError(
            "The model does not fit the engine:",
            "refit exchanges values of weights alone. For another model build another engine: rtformer-deploy build-engine --strip.",
            details=[*(f"  {line}" for line in lines[:_MOST_NAMED]), *more],
        )
    changed = frozenset(name for name, weight in found.items() if weight.sha256 != refit.weights[name].sha256)
    return replace(refit, stripped=False, weights=found), changed


def _differences(built: Mapping[str, StoredWeight], found: Mapping[str, StoredWeight]) -> Iterator[str]:
    for name, weight in built.items():
        if name not in found:
            yield f"{name} ({_text(weight)}) is missing in the model"
        elif (found[name].dtype, found[name].shape) != (weight.dtype, weight.shape):
            yield f"{name} is {_text(found[name])} in the model, {_text(weight)} in the engine"
    for name in found.keys() - built.keys():
        yield f"{name} ({_text(found[name])}) is not in the engine"


def _text(weight: StoredWeight) -> str:
    return f"{weight.dtype} {'x'.join(map(str, weight.shape)) or 'number'}"


def _weights(model: ir.Model) -> Iterator[tuple[ir.Value, ir.TensorProtocol]]:
    for value in model.graph.initializers.values():
        if value.const_value is not None and value.const_value.dtype in _WEIGHTS:
            yield value, value.const_value


def _stored(tensor: ir.TensorProtocol) -> StoredWeight:
    return StoredWeight(tensor.dtype.numpy().name, tuple(map(int, tensor.shape.numpy())), sha256(tensor.tobytes()))


def _clear_remarks(graph: onnx.GraphProto) -> None:
    """Removes what people and exporters wrote about a graph and its parts, in the bodies of If, Loop and Scan too, and shapes between."""
    graph.ClearField("value_info")
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        for field in _REMARKS:
            part.ClearField(field)
    for body in (body for node in graph.node for body in bodies(node)):
        _clear_remarks(body)
