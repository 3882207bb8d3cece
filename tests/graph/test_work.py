"""Multiplications and parameters of a model: counted by hand for a small one, and left open where the graph does not say a size."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
from helpers import CHANNELS, CLASSES, tiny_model
from onnx import TensorProto, helper, numpy_helper

from rtformer_deploy.formats.model_file import parse_model, serialize_model
from rtformer_deploy.graph.work import Work, work_of

#: Three 3x3 convolutions of stride 2 on 64x96.
MACS = 9 * sum(a * b * h * w for a, b, h, w in zip(CHANNELS, CHANNELS[1:], (32, 16, 8), (48, 24, 12), strict=False))
PARAMETERS = 9 * sum(a * b for a, b in itertools.pairwise(CHANNELS))


def test_convolutions_are_counted_for_one_image() -> None:
    assert CHANNELS[-1] == CLASSES
    assert work_of(tiny_model()) == Work(MACS, 0, PARAMETERS)
    assert work_of(tiny_model(batch=4)) == work_of(tiny_model(batch="batch")) == Work(MACS, 0, PARAMETERS)


def attention(rows: int | str) -> Work:
    """Linear(8 to 6), then the product of its result with its own transpose: (2, rows, 6) by (2, 6, rows)."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["q"]),
        helper.make_node("Transpose", ["q"], ["k"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "k"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, rows, 8]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
    ]
    graph = helper.make_graph(nodes, "attention", ends[:1], ends[1:], [numpy_helper.from_array(np.ones((8, 6), np.float32), "w")])
    return work_of(parse_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()))


def test_a_transposed_convolution_uses_each_weight_once_for_each_place_of_its_input() -> None:
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], kernel_shape=[2, 2])
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4, 5]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 7, 8, 10]),
    ]
    weights = [numpy_helper.from_array(np.ones((3, 7, 2, 2), np.float32), "w")]
    graph = helper.make_graph([node], "up", ends[:1], ends[1:], weights)
    model = parse_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString())
    assert work_of(model).macs == 3 * 7 * 2 * 2 * 4 * 5


def test_products_of_activations_are_counted_apart() -> None:
    assert attention(5) == Work(5 * 8 * 6, 5 * 5 * 6, 48)


def test_what_the_graph_does_not_say_is_left_open() -> None:
    assert attention("rows") == Work(None, None, 48)


def test_the_model_stays_as_it_was() -> None:
    model = tiny_model()
    before = serialize_model(model)
    work_of(model)
    assert serialize_model(model) == before
    onnx.checker.check_model(onnx.load_from_string(before))
