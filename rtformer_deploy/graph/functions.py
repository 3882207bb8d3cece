"""The `rtformer` domain: its nodes, defined by ONNX functions that the model carries.

    GroupedDoubleNorm        the double normalisation of GPU-friendly attention (arXiv 2210.07124, section 3.2)
    CrossResolutionAttention every pixel attends to pooled tokens (section 3.3)
    AdaptiveMaxPool          the largest of each bin; `rows` and `columns` (bins, longest bin) hold the bins' indices

`add_functions` gives a model the bodies of the nodes it uses, so that what knows ONNX functions can run it; `inline_functions` puts
the bodies in the place of the nodes, for builders that need plain operators.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx
import onnx.parser
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from .edit import free_name, label

DOMAIN = "rtformer"
#: Marks what is made of one call while functions are inlined.
_CALL = "rtformer_deploy.call"

_BODIES = {
    "GroupedDoubleNorm": """<domain: "rtformer", opset_import: ["" : {opset}]>
        GroupedDoubleNorm <groups: int, group_size: int> (x) => (y) {{
            copy = Constant <value_ints: ints = [0]> ()
            rest = Constant <value_ints: ints = [-1]> ()
            groups = Constant <value_int: int = @groups> ()
            size = Constant <value_int: int = @group_size> ()
            groups_1d = Reshape (groups, rest)
            size_1d = Reshape (size, rest)
            grouped_shape = Concat <axis = 0> (copy, groups_1d, size_1d, rest)
            grouped = Reshape (x, grouped_shape)
            weights = Softmax <axis = 3> (grouped)
            channels = Constant <value_ints: ints = [2]> ()
            sums = ReduceSum <keepdims = 1> (weights, channels)
            epsilon = Constant <value_float: float = 0.000001> ()
            safe_sums = Add (sums, epsilon)
            normal = Div (weights, safe_sums)
            shape = Shape (x)
            y = Reshape (normal, shape)
        }}""",
    "CrossResolutionAttention": """<domain: "rtformer", opset_import: ["" : {opset}]>
        CrossResolutionAttention <scale: float> (query, key, value) => (y) {{
            flat_shape = Constant <value_ints: ints = [0, 0, -1]> ()
            pixels = Reshape (query, flat_shape)
            scale = Constant <value_float: float = @scale> ()
            scaled_key = Mul (key, scale)
            scores = MatMul (scaled_key, pixels)
            weights = Softmax <axis = 1> (scores)
            mixed = MatMul (value, weights)
            shape = Shape (query)
            y = Reshape (mixed, shape)
        }}""",
    "AdaptiveMaxPool": """<domain: "rtformer", opset_import: ["" : {opset}]>
        AdaptiveMaxPool (x, rows, columns) => (y) {{
            by_row = Gather <axis = 2> (x, rows)
            within_row = Constant <value_ints: ints = [3]> ()
            row_maxima = ReduceMax <keepdims = 0> (by_row, within_row)
            by_column = Gather <axis = 3> (row_maxima, columns)
            within_column = Constant <value_ints: ints = [4]> ()
            y = ReduceMax <keepdims = 0> (by_column, within_column)
        }}""",
}


#: The operators of the domain.
OPERATORS = frozenset(_BODIES)


def add_functions(model: ir.Model) -> ir.Model:
    """Adds the function of every `rtformer` node to the model; changes the model."""
    opset = model.opset_imports.get("", 20)
    for name in sorted({node.op_type for node in model.graph if node.domain == DOMAIN}):
        proto = onnx.parser.parse_function(_BODIES[name].format(opset=opset))
        function = ir.serde.deserialize_function(proto)
        model.functions[function.identifier()] = function
    model.opset_imports[DOMAIN] = 1
    return model


def inline_foreign_functions(model: ir.Model) -> ir.Model:
    """Inlines the functions of other domains, as newer exporters write them, because the passes look at operators; changes the model."""
    inline_calls(model, lambda function: function.domain != DOMAIN)
    for identifier in [each for each, function in model.functions.items() if function.domain != DOMAIN]:
        del model.functions[identifier]
    return model


def inline_functions(model: ir.Model) -> ir.Model:
    """Replaces each node that has a function by the function's body; changes the model.

    The body's nodes are named after the module of the node that they replace: "layer4.attn_h/MatMul".
    """
    inline_calls(model)
    model.functions.clear()
    if not any(node.domain == DOMAIN for node in model.graph):  # a node without a function belongs to a plugin
        model.opset_imports.pop(DOMAIN, None)
    return model


def inline_calls(model: ir.Model, criteria: Callable[[ir.Function], bool] | None = None) -> dict[str, list[ir.Node]]:
    """Puts the bodies of functions in the place of the nodes that call them; changes the model.

    `criteria` chooses the functions, all without it. Returns what each call has become, by the call's name, in graph order.
    """
    chosen = {name for name, function in model.functions.items() if criteria is None or criteria(function)}
    calls = [node for node in model.graph.all_nodes() if node.op_identifier() in chosen]
    for index, node in enumerate(calls):
        node.metadata_props[_CALL] = str(index)  # what is made of it inherits this
    InlinePass(criteria)(model)
    bodies: dict[str, list[ir.Node]] = {}
    for node in model.graph.all_nodes():
        number = node.metadata_props.pop(_CALL, None)
        if number is not None:
            bodies.setdefault(number, []).append(node)
    inner = {node for body in bodies.values() for node in body}
    used = {node.name for node in model.graph.all_nodes() if node not in inner}
    for number, body in bodies.items():
        _name_body(body, _module(calls[int(number)]), used)
    return {calls[int(number)].name or number: body for number, body in bodies.items()}


def _name_body(body: list[ir.Node], module: str, used: set[str | None]) -> None:
    """Names a call's nodes after their module and operator, with a number if that name is taken."""
    for node in body:
        node.name = free_name(f"{module}/{node.op_type}", used)
        used.add(node.name)


def _module(call: ir.Node) -> str:
    """The module of a call that `graph.names` named: "layer4.attn_h" for both "layer4.attn_h" and "layer4.attn_h/CrossResolutionAttention".

    A call from elsewhere stands for itself.
    """
    name = label(call)
    scope, _, last = name.rpartition("/")
    return scope if scope and last.startswith(call.op_type) else name
