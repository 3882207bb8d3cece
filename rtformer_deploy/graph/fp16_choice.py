"""Chooses the nodes of a graph that stay in FP32 when the rest becomes FP16, and says which and why.

- what the caller names
- nodes with bodies (If, Loop, Scan), body and all
- what does not depend on the picture, such as grids of indices: a builder computes it once, and FP16 cannot count beyond 2048
- what reads a constant that FP16 cannot hold, unless it stands for "very much" (`fp16_constants`)
- what reads or gives values beyond FP16's range in one FP32 run (`fp16_probe`)
"""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterable, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..errors import ModelError, shorten
from ..files import printable
from .bodies import bodies, inner_nodes
from .edit import label
from .fp16_constants import Fitted, fit_constants
from .fp16_probe import Probe, run_probe
from .functions import DOMAIN
from .notes import add_note, note_finite

#: (domain, name) of the operators that still compute in FP32.
FP32_OPERATORS = frozenset({(DOMAIN, "GroupedDoubleNorm")})
#: What these give depends on a tensor's shape alone.
_SHAPES = frozenset({"Shape", "Size"})
_NAMED = 5  # names in a note


def choose_fp32(
    model: ir.Model, globs: Sequence[str], operators: Collection[tuple[str, str]], probe: NDArray[np.float32] | None
) -> set[ir.Node]:
    """The nodes of the main graph that stay in FP32; adds notes to the model, and fits its constants to FP16.

    Raises ModelError if a glob matches nothing, or a node whose body other nodes share.
    """
    nodes = list(model.graph)
    asked = _named(nodes, globs) | {node for node in nodes if (node.domain, node.op_type) in operators}
    with_bodies = {node for node in nodes if any(True for _ in bodies(node))}
    named = with_bodies | asked
    free = _independent(model.graph)
    fitted = fit_constants(model.graph, [node for node in nodes if node not in named], free)
    beyond = _beyond(nodes, fitted, Probe() if probe is None else _run_probe(model, probe))
    _tell(model, fitted.clamped, "FP16 clamps", "constant", "of a mask or a bound to the largest number that it holds")
    _tell(model, [label(node) for node in nodes if node in with_bodies - asked], "FP16 leaves", "node", "in FP32, with all inside")
    _tell(model, [label(node) for node in nodes if node in beyond - named], "FP16 leaves", "node", "in FP32, whose values it cannot hold")
    return named | beyond | free


def _beyond(nodes: Sequence[ir.Node], fitted: Fitted, ranges: Probe) -> set[ir.Node]:
    """The nodes that read a constant, or read or give a tensor, that FP16 cannot hold."""
    masks = {node for node in fitted.masks if not _reads_beyond(node, ranges, fitted.masks)}
    beyond = set(fitted.fp32) | {node for node in nodes if node not in masks and _is_beyond(node, ranges, masks)}
    return beyond | {producer for node in beyond if (producer := _weight_dequantiser(node)) is not None}


def _run_probe(model: ir.Model, image: NDArray[np.float32]) -> Probe:
    ranges = run_probe(model, image)
    _tell_finite(model, ranges)
    return ranges


def _tell_finite(model: ir.Model, ranges: Probe) -> None:
    if ranges.finite:
        note_finite(model)
    else:
        add_note(model, "The model itself gives NaN or infinity on the sample frame, in FP32 too; calibrate names the first tensor.")


def _tell(model: ir.Model, names: Sequence[str], verb: str, noun: str, rest: str) -> None:
    """Adds a note that counts the names and lists the first of them."""
    unique = list(dict.fromkeys(names))
    if not unique:
        return
    what = f"{len(unique)} {noun}{'' if len(unique) == 1 else 's'} {rest}"
    more = f" and {len(unique) - _NAMED} more" if len(unique) > _NAMED else ""
    add_note(model, f"{verb} {what}: {', '.join(shorten(printable(name)) for name in unique[:_NAMED])}{more}.")


def _named(nodes: Sequence[ir.Node], globs: Sequence[str]) -> set[ir.Node]:
    """The nodes that stay in FP32 by name."""
    found: set[ir.Node] = set()
    for glob in globs:
        named = {node for node in nodes if fnmatch.fnmatchcase(node.name or "", glob)}
        if not named:
            raise ModelError(f"fp32 = {glob} matches no node of the model.", "rtformer-deploy inspect names its operators.")
        found |= named
    shared = next((node for node in nodes if node in found and node.domain and (node.domain, node.op_type) not in FP32_OPERATORS), None)
    if shared is not None:
        raise ModelError(f"{shared.name} is a {shared.op_type}, whose body is in FP16 for all nodes of its kind: it cannot be FP32 alone.")
    return found


def _independent(graph: ir.Graph) -> set[ir.Node]:
    """The nodes whose values are the same for every picture. Dequantised weights are left out: they take part in INT8."""
    moving = {value for value in graph.inputs if value.name not in graph.initializers}
    free: set[ir.Node] = set()
    for node in graph:
        if node.op_type in _SHAPES:
            continue
        read: Iterable[ir.Value | None] = (value for each in (node, *inner_nodes(node)) for value in each.inputs)
        if any(value in moving for value in read):
            moving |= set(node.outputs)
        elif node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            free.add(node)
    return free


def _is_beyond(node: ir.Node, ranges: Probe, masks: set[ir.Node]) -> bool:
    """Whether a node reads or gives a tensor that FP16 cannot hold."""
    if node.op_type in _SHAPES:
        return False
    return _reads_beyond(node, ranges, masks) or any(ranges.beyond(value.name) for value in node.outputs)


def _reads_beyond(node: ir.Node, ranges: Probe, masks: set[ir.Node]) -> bool:
    """Whether a node reads a tensor that FP16 cannot hold and that is no mask."""
    return any(value is not None and value.producer() not in masks and ranges.beyond(value.name) for value in node.inputs)


def _weight_dequantiser(node: ir.Node) -> ir.Node | None:
    """The node that dequantises a node's weight, so that both have one type."""
    producer = node.inputs[1].producer() if len(node.inputs) > 1 and node.inputs[1] is not None else None
    return producer if producer is not None and producer.op_type == "DequantizeLinear" else None
