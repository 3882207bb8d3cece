"""Writes a model's `rtformer` nodes out as plain operators, for tools that do not run ONNX functions, and puts the nodes back.

Passes, calibration and tuning look for `rtformer` nodes. So a portable file says which of its nodes stand for which call, and whoever
reads the file for work puts the calls back: engines, ranges and blocks are those of the file with functions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import onnx_ir as ir
from msgspec import Meta

from ..errors import ModelError
from ..formats.conversion import convert
from ..formats.documents import DocumentError, parse_json
from ..formats.explain import shown
from ..types import Text
from .edit import lift_constants
from .functions import DOMAIN, OPERATORS, add_functions, inline_calls, inline_functions

#: Where a portable file keeps its calls.
KEY = "rtformer_deploy.calls"
#: In `ir.Model.meta`, which stays in memory: how many calls a portable file had, and how many of them could not be put back.
_WRITTEN_OUT = "rtformer_deploy.written_out"


@dataclass(frozen=True, slots=True)
class Call:
    """A node of the `rtformer` domain, and the names of the plain nodes that stand for it, in graph order."""

    name: Text
    operator: Text
    attributes: Mapping[Text, int | float]
    inputs: Annotated[tuple[Text, ...], Meta(min_length=1, max_length=8)]
    nodes: Annotated[tuple[Text, ...], Meta(min_length=1, max_length=100)]


Calls = Annotated[tuple[Call, ...], Meta(max_length=1000)]


def write_out(model: ir.Model) -> ir.Model:
    """Makes a model of plain operators of a model with `rtformer` nodes, and notes in it what stood there; changes the model."""
    calls = {str(node.name): _call(node) for node in model.graph if node.domain == DOMAIN}
    bodies = inline_calls(model)
    inline_functions(model)
    lift_constants(model, numbers=True)
    left = {node.name for node in model.graph}
    noted = [{**asdict(call), "nodes": [node.name for node in bodies[name] if node.name in left]} for name, call in calls.items()]
    model.metadata_props[KEY] = json.dumps(noted, separators=(",", ":"))
    return model


def is_written_out(model: ir.Model) -> bool:
    """Whether a model is, or comes from, a portable file."""
    return KEY in model.metadata_props or _WRITTEN_OUT in model.meta


def written_out_notes(model: ir.Model) -> tuple[str, ...]:
    """What a person should know about a model whose calls were put back: how many could not be. Empty for any other."""
    count, lost = model.meta.get(_WRITTEN_OUT, (0, 0))
    if not lost:
        return ()
    return (f"{lost} of {count} attention operators were changed after the export, so they count as plain operators.",)


def put_back(model: ir.Model) -> ir.Model:
    """Puts the calls of a portable model back in the place of their nodes; changes the model. Any other model stays as it is.

    A call whose nodes are not what its function gives any more, as in an edited file, stays written out. Raises ModelError if the notes
    about the calls are damaged.
    """
    text = model.metadata_props.pop(KEY, None)
    if text is None:
        return model
    try:
        calls = convert(parse_json(text), Calls)
        _check_operators(calls)
    except DocumentError as error:
        raise ModelError(f"The model's {KEY} cannot be read: {error}.", "Export the model again.") from error
    nodes = {str(node.name): node for node in model.graph}
    lost = sum(not _put_back(model, call, nodes) for call in calls)
    add_functions(model)
    model.meta[_WRITTEN_OUT] = (len(calls), lost)
    return model


def _check_operators(calls: Sequence[Call]) -> None:
    unknown = next((call.operator for call in calls if call.operator not in OPERATORS), None)
    if unknown is not None:
        raise DocumentError(f"the operator {shown(unknown)}, which is none of {DOMAIN}")


def _call(node: ir.Node) -> Call:
    attributes = {name: value.value for name, value in node.attributes.items()}
    inputs = tuple(str(value.name) for value in node.inputs if value is not None)
    return Call(str(node.name), node.op_type, attributes, inputs, ())


def _put_back(model: ir.Model, call: Call, nodes: Mapping[str, ir.Node]) -> bool:
    """Puts one call back if its nodes are whole, and says whether they were."""
    body = [nodes[name] for name in call.nodes if name in nodes]
    if len(body) < len(call.nodes) or any(node.graph is not model.graph for node in body):
        return False
    old = body[-1].outputs[0]
    if list(_structure(body, call)) != _expected(model, call) or _is_read_elsewhere(body, old):
        return False
    values = {value.name: value for node in body for value in node.inputs if value is not None}
    node = _node(call, [values[name] for name in call.inputs])
    new = node.outputs[0]
    new.name, new.shape, new.type = old.name, old.shape, old.type
    new.metadata_props.update(old.metadata_props)
    model.graph.insert_before(body[0], node)
    constants = [value for value in values.values() if value.is_initializer() and value.name not in call.inputs]
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    model.graph.remove(body, safe=True)
    for value in constants:
        if not value.uses() and not value.is_graph_output():
            model.graph.initializers.pop(str(value.name))
    return True


def _node(call: Call, inputs: Sequence[ir.Value]) -> ir.Node:
    return ir.node(call.operator, inputs, dict(call.attributes), domain=DOMAIN, name=call.name)


def _expected(model: ir.Model, call: Call) -> list[object]:
    """The structure of the nodes that stand for a call in a file that nobody has changed; empty if there is no such call."""
    inputs = [ir.Value(name=name) for name in call.inputs]
    node = _node(call, inputs)
    graph = ir.Graph(inputs, node.outputs, nodes=[node], opset_imports={"": model.opset_imports.get("", 1)}, name="call")
    alone = add_functions(ir.Model(graph, ir_version=model.ir_version))
    if any(len(function.inputs) != len(call.inputs) for function in alone.functions.values()):
        return []
    written = write_out(alone)
    return list(_structure(list(written.graph), call))


def _structure(body: Sequence[ir.Node], call: Call) -> Iterator[object]:
    """What nodes compute, without their names: operators, attributes and what reads what; the constants with their values."""
    made = {output: (index, number) for index, node in enumerate(body) for number, output in enumerate(node.outputs)}
    for node in body:
        attributes = {name: (attribute.type, _plain(attribute.value)) for name, attribute in node.attributes.items()}
        yield node.domain, node.op_type, attributes, [_origin(value, made, call) for value in node.inputs], len(node.outputs)


def _origin(value: ir.Value | None, made: Mapping[ir.Value, tuple[int, int]], call: Call) -> object:
    if value is None or value in made:
        return None if value is None else made[value]
    if value.name in call.inputs:
        return call.inputs.index(value.name)
    if value.const_value is None:
        return value.name
    array = value.const_value.numpy()
    return array.dtype.str, array.shape, array.tobytes()


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _is_read_elsewhere(body: Sequence[ir.Node], output: ir.Value) -> bool:
    """Whether anything but the nodes themselves reads what they make, the output apart."""
    inner = [value for node in body for value in node.outputs if value is not output]
    inside = set(body)
    return any(value.is_graph_output() or any(reader not in inside for reader, _ in value.uses()) for value in inner)
