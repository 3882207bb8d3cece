"""What a model's file may hold: bounds that are checked before any library reads the file or walks through the graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import onnx

from ..errors import ModelError, shorten
from .subgraphs import walk

#: The most nodes of a model, once the functions that it calls are written out. Large networks have some ten thousand.
MOST_NODES = 100_000
#: The most weights, nodes and remarks of a file together.
MOST_PARTS = 1_000_000
#: How deep the bodies of If, Loop and Scan may lie in each other. Protobuf itself reads 32.
MOST_NESTED = 30
#: The longest name of a node or a tensor, in characters; documents that name tensors bound it too.
LONGEST_NAME = 1000

_Key = tuple[str, str, str]  # domain, name, overload


#: Where nodes lie in ONNX's protobuf messages: message -> number of a field -> the message in it.
_PARTS = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {6: "graph", 11: "graph"},
}


def check_bytes(data: bytes, name: str) -> None:
    """Raises ModelError if an ONNX file's bytes hold too many parts, or graphs too deep in each other; parsed, they would take gigabytes.

    Looks at lengths only. Bytes that are no messages are left to the parser, which says so.
    """
    nodes, parts, stack = 0, 0, [("model", 0, len(data), 0)]
    while stack:
        message, start, end, depth = stack.pop()
        depth += message == "graph"
        if depth > MOST_NESTED:
            raise ModelError(f"{name} has graphs that are nested more than {MOST_NESTED} deep, which is deeper than is read.")
        for number, begin, stop in _fields(data, start, end):
            part = _PARTS[message].get(number)
            nodes, parts = nodes + (part == "node"), parts + (message == "graph")
            if nodes > MOST_NODES:
                raise _too_many(name)
            if parts > MOST_PARTS:
                raise ModelError(f"{name} has more than {MOST_PARTS:,} weights and other parts, which is more than is read.")
            if part is None:
                continue
            stack.append((part, begin, stop, depth))


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The fields of a message that have a length: number, begin and end."""
    while at < end:
        key, at = _varint(data, at, end)
        kind = key & 7
        if kind == 2:
            length, at = _varint(data, at, end)
            yield key >> 3, at, min(at + length, end)
            at += length
        elif kind == 0:
            _, at = _varint(data, at, end)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            return


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A number in protobuf's base 128, and where it ends."""
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        value |= (byte & 127) << shift
        shift, at = shift + 7, at + 1
        if byte < 128:
            break
    return value, at


def check_bounds(proto: onnx.ModelProto, name: str) -> None:
    """Raises ModelError if a model has too many nodes, names that are too long, or functions that call themselves."""
    graph = proto.graph
    _check_names(name, (each.name for part in (graph.input, graph.output, graph.initializer) for each in part))
    budget = _Budget(name)
    calls = {_key_of(function): _calls(function.node, budget) for function in proto.functions}
    _check_expanded(name, _calls(graph.node, budget), calls)


class _Budget:
    """Counts the nodes in the file itself."""

    def __init__(self, name: str) -> None:
        self._name, self._left = name, MOST_NODES

    def take(self, node: onnx.NodeProto) -> None:
        self._left -= 1
        if self._left < 0:
            raise _too_many(self._name)
        _check_names(self._name, (node.name, node.op_type, node.domain, *node.input, *node.output))


def _too_many(name: str) -> ModelError:
    return ModelError(f"{name} has more than {MOST_NODES:,} nodes, which is more than is read.")


def _check_names(name: str, names: Iterable[str]) -> None:
    for each in names:
        if len(each) > LONGEST_NAME:
            raise ModelError(
                f"{name} has a name of {len(each):,} characters, more than {LONGEST_NAME:,}: it begins with {shorten(each, 40)!r}."
            )


def _calls(nodes: Iterable[onnx.NodeProto], budget: _Budget) -> Counter[_Key]:
    """How often each operator occurs among nodes, in their subgraphs too."""
    counts: Counter[_Key] = Counter()
    for node in walk(nodes):
        budget.take(node)
        counts[node.domain, node.op_type, node.overload] += 1
    return counts


def _check_expanded(name: str, main: Counter[_Key], calls: dict[_Key, Counter[_Key]]) -> None:
    """Adds up the nodes function by function, callees first, without writing any out."""
    sizes: dict[_Key, int] = {}
    waiting = {key: {callee for callee in called if callee in calls} for key, called in calls.items()}
    readers: dict[_Key, list[_Key]] = {key: [] for key in calls}
    for key, callees in waiting.items():
        for callee in callees:
            readers[callee].append(key)
    ready = [key for key, callees in waiting.items() if not callees]
    while ready:
        key = ready.pop()
        sizes[key] = _total(calls[key], sizes)
        for reader in readers[key]:
            waiting[reader].discard(key)
            if not waiting[reader]:
                ready.append(reader)
    circular = next((key for key in calls if key not in sizes), None)
    if circular is not None:
        raise ModelError(f"{name} is not a valid ONNX model: its function {shorten(circular[1], 80)} calls itself.")
    if _total(main, sizes) > MOST_NODES:
        raise ModelError(f"{name} has more than {MOST_NODES:,} nodes once its functions are written out, which is more than is read.")


def _total(called: Counter[_Key], sizes: dict[_Key, int]) -> int:
    """The nodes of a body; once over the bound it does not matter how far."""
    return min(sum(count * sizes.get(key, 1) for key, count in called.items()), MOST_NODES + 1)


def _key_of(function: onnx.FunctionProto) -> _Key:
    return function.domain, function.name, function.overload
