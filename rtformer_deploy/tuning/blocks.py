"""A model -> the named groups of operators whose precision `tune` chooses together.

A block is the content of one module, two parts deep or down to its number in a stage ("layer1.0", "layer4.mlp_h",
"backbone.features.4"). Blocks of one module with under 1% of the multiplications each become one block, since none of them gains anything
alone. Everything without a layer for INT8 is the block REST, which has a choice on TensorRT only (FP16 or FP32).
"""

from __future__ import annotations

import glob
from collections.abc import Iterable
from dataclasses import dataclass

import onnx_ir as ir

from ..errors import ModelError
from ..graph.names import home
from ..graph.qdq import ranges_of
from ..graph.quantizable import quantizable
from ..graph.weights import weight_of
from ..graph.work import multiplications
from ..types import Ranges

REST = "rest"
_SMALL = 0.01  # of the model's multiplications


@dataclass(frozen=True, slots=True)
class Block:
    """Operators that change precision together: `convolutions` (linear layers too) can be INT8, `operators` is everything; `work` its
    share of the multiplications of all layers, 0 to 1."""

    name: str
    convolutions: tuple[str, ...]
    operators: tuple[str, ...]
    work: float


def find_blocks(model: ir.Model, ranges: Ranges) -> list[Block]:
    """A model with its functions -> its blocks in graph order, REST last if there is one.

    Raises ModelError if layers have no names, or nothing can be quantised.
    """
    candidates = [node for node in model.graph if quantizable(node, model) and ranges_of(node, ranges) > 0]
    unnamed = [node for node in candidates if not node.name]
    if unnamed:
        what = "convolutions" if all(node.op_type == "Conv" for node in unnamed) else "layers"
        raise ModelError(f"{len(unnamed)} {what} of the model have no name, so no recipe could say which of them are INT8.")
    if not candidates:
        raise ModelError("Nothing in the model can be quantised.", "Build it with --fp16 or --fp32.")
    work = {node: multiplications(node) for node in model.graph if node.op_type == "Conv" or weight_of(node) is not None}
    total = max(sum(work.values()), 1)
    homes = {home(str(node.name)): 0.0 for node in candidates}
    for node, count in work.items():
        if home(str(node.name)) in homes:
            homes[home(str(node.name))] += count / total
    joined = _join(homes)
    members: dict[str, list[ir.Node]] = {}
    for node in model.graph:
        members.setdefault(joined.get(home(node.name or ""), REST), []).append(node)
    eligible = set(candidates)
    order = [*dict.fromkeys(joined.values()), *([REST] if REST in members else [])]
    return [_block(name, members[name], eligible, sum(work.get(node, 0) for node in members[name]) / total) for name in order]


def globs(names: Iterable[str]) -> tuple[str, ...]:
    """Names as globs that match them alone."""
    return tuple(glob.escape(name) for name in names)


def _block(name: str, nodes: list[ir.Node], eligible: set[ir.Node], work: float) -> Block:
    """Skips nodes with a custom domain as operators: their function bodies set their own precision."""
    convolutions = dict.fromkeys(str(node.name) for node in nodes if node in eligible)
    operators = dict.fromkeys(str(node.name) for node in nodes if node.name and node.domain == "")
    return Block(name, tuple(convolutions), tuple(operators), work)


def _join(homes: dict[str, float]) -> dict[str, str]:
    """Each module -> the block it belongs to: its own, or its parent's if it has small siblings to join."""
    small: dict[str, list[str]] = {}
    for name, share in homes.items():
        parent, _, leaf = name.rpartition(".")
        if leaf and parent and share < _SMALL:
            small.setdefault(parent, []).append(name)
    joined = {name: name for name in homes}
    for parent, names in small.items():
        if len(names) > 1:
            joined |= dict.fromkeys(names, parent)
    return joined
