"""Names every tensor after the module that makes it, so that names do not depend on size, batch, head or exporter version.

A module that holds no other module gives its own path to its last tensor ("layer4.attn_l.norm"); every other tensor is named after
the module, the operator and, if that is not enough, a number in graph order ("layer4/Add_1").
"""

from __future__ import annotations

import ast
import re
from collections import Counter

import onnx_ir as ir

_SCOPES = "pkg.torch.onnx.name_scopes"


def name_tensors(model: ir.Model) -> ir.Model:
    """Renames the tensors and nodes of a freshly exported model after their modules; changes the model.

    Inputs, outputs and weights keep their names.
    """
    scopes = [_scope(node) for node in model.graph]
    parents = {scope[:cut] for scope in set(scopes) for cut in range(len(scope)) if scope[cut] == "."} | {""}
    last = {scope: index for index, scope in enumerate(scopes)}
    used: Counter[str] = Counter()
    fixed = {value.name for value in (*model.graph.inputs, *model.graph.outputs)}
    for index, (node, scope) in enumerate(zip(list(model.graph), scopes, strict=True)):
        if scope not in parents and last[scope] == index:
            base = scope
        else:  # only a dynamic batch has shape arithmetic, so it is numbered apart from the other operators
            shape = "shape/" if node.outputs[0].dtype == ir.DataType.INT64 else ""
            base = f"{scope or 'network'}/{shape}{node.op_type}"
        number = used[base]
        used[base] += 1
        node.name = f"{base}_{number}" if number else base
        for position, output in enumerate(node.outputs):
            if output.name not in fixed:
                output.name = node.name if position == 0 else f"{node.name}:{position}"
    return model


def home(name: str) -> str:
    """An operator's name -> its module's name, cut to two parts, or behind its first number; a name of one part does not change.

    The first number is a block's place in its stage: "layer1.0", "backbone.features.4". Names of other exporters ("/layer4/layer4.0/Conv")
    repeat parts, so they are cut to two.
    """
    parts = [part for part in re.split(r"[./]", name) if part][:-1]
    numbers = [] if name.startswith("/") else [place for place, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[: max(2, numbers[0] + 1 if numbers else 2)]) or name


def strip_traces(model: ir.Model, name: str) -> ir.Model:
    """Removes the exporter's notes about sources, paths and stack traces, and names the graph `name`; changes the model."""
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props.clear()
    model.graph.name = name
    return model


def _scope(node: ir.Node) -> str:
    """The path of the module that a node comes from; the exporter's last entry is the operation itself."""
    text = node.metadata_props.get(_SCOPES)
    if text is None:
        return ""
    path = [part for part in ast.literal_eval(text)[:-1] if part]
    return str(path[-1]) if path else ""
