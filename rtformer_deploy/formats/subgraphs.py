"""The graphs inside the nodes of an ONNX file: bodies of If, Loop and Scan. `graph.bodies` does this for models that were read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx


def bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that a node holds itself, without those inside them."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def walk(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Nodes and those inside them, each before its own."""
    for node in nodes:
        yield node
        for body in bodies(node):
            yield from walk(body.node)
