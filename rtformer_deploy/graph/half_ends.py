"""Makes the input and the logits of an FP16 graph FP16 too, so that an engine reads and writes half the bytes.

Run it after `to_fp16`, which leaves both FP32, with a cast behind the input and one before the output. Without these casts the values
stay the same: whoever fills the input rounds as the cast did, to nearest even, and FP16 logits fit into FP32.
"""

from __future__ import annotations

import onnx_ir as ir

from .notes import add_note


def half_ends(model: ir.Model) -> ir.Model:
    """Makes the FP32 inputs and outputs of a model's graph FP16; changes the model. Outputs of other types, such as labels, stay.

    Nodes that compute in FP32 get a cast, and an output that such a node makes is rounded to FP16, which a note says.
    """
    graph = model.graph
    for value in graph.inputs:
        if value.dtype == ir.DataType.FLOAT and value.name not in graph.initializers:
            _half_input(graph, value)
    for value in list(graph.outputs):
        if value.dtype == ir.DataType.FLOAT:
            _half_output(model, value)
    return model


def _half_input(graph: ir.Graph, value: ir.Value) -> None:
    """Readers of the input's cast to FP16 read the input, and those of the FP32 input a cast back to FP32."""
    value.dtype = ir.DataType.FLOAT16
    uses = list(value.uses())
    casts = {node for node, _ in uses if _casts_to(node, ir.DataType.FLOAT16)}
    for cast in casts:
        cast.outputs[0].replace_all_uses_with(value)
        graph.remove(cast, safe=True)
    exact = [(node, index) for node, index in uses if node not in casts]
    if exact:
        back = _cast(value, ir.DataType.FLOAT, f"{value.name}/to_fp32")
        graph.insert_before(graph[0], back)
        for node, index in exact:
            node.replace_input_with(index, back.outputs[0])


def _half_output(model: ir.Model, value: ir.Value) -> None:
    """Puts another value in the place of an FP32 output, under its name: what the output's cast reads, or else a new cast of it."""
    name, producer = value.name, value.producer()
    assert name is not None
    assert producer is not None, "an output depends on the input"
    before = producer.inputs[0] if _casts_to(producer, ir.DataType.FLOAT) else None
    if before is not None and before.dtype == ir.DataType.FLOAT16 and not before.is_graph_input() and not before.is_graph_output():
        value.replace_all_uses_with(before, replace_graph_outputs=True)
        model.graph.remove(producer, safe=True)
        before.name, before.shape = name, value.shape
        return
    value.name = f"{name}/fp32"
    half = _cast(value, ir.DataType.FLOAT16, name)
    model.graph.outputs[list(model.graph.outputs).index(value)] = half.outputs[0]
    model.graph.insert_after(producer, half)
    add_note(model, f"The output {name} is computed in FP32 and rounded to FP16, as --io fp16 asks.")


def _casts_to(node: ir.Node, dtype: ir.DataType) -> bool:
    return node.op_type == "Cast" and node.domain == "" and node.attributes["to"].as_int() == dtype


def _cast(value: ir.Value, dtype: ir.DataType, name: str) -> ir.Node:
    node = ir.node("Cast", [value], {"to": dtype}, name=name)
    node.outputs[0].name, node.outputs[0].dtype, node.outputs[0].shape = name, dtype, value.shape
    return node
