"""Which tensors are never negative, and that unsigned bytes then hold them with all their levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from elsewhere_models import CHANNELS, Maker, error, exact, foreign, image, ranges_of_run
from foreign_models import number, value
from onnx import helper

from rtformer_deploy.formats.model_file import parse_model
from rtformer_deploy.graph.edit import constant
from rtformer_deploy.graph.run import run_model
from rtformer_deploy.graph.signs import never_negative
from rtformer_deploy.pipeline import prepare_model
from rtformer_deploy.types import Backend, BuildOptions

SIGNED, POSITIVE = "x", "r"  # the input, and its ReLU
CONSTANTS = [
    number("half", 0.5, np.float32),
    number("minus", -0.5, np.float32),
    number("zero", 0.0, np.float32),
    number("axes", [2, 3]),
    number("twice", [1, 1, 2, 2], np.float32),
]


def node(kind: str, *inputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, ["y"], **attributes)


def model(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    relu = helper.make_node("Relu", ["x"], [POSITIVE])
    names = {name for each in nodes for name in each.input}
    weights = [each for each in CONSTANTS if each.name in names]
    graph = helper.make_graph([relu, *nodes], "signs", [value("x", (1, 4, 6, 6))], [value("y", None)], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


NEVER = [
    [node("Sigmoid", SIGNED)],
    [node("Softmax", SIGNED, axis=1)],
    [node("MaxPool", POSITIVE, kernel_shape=[3, 3])],
    [node("AveragePool", POSITIVE, kernel_shape=[3, 3])],
    [node("GlobalAveragePool", POSITIVE)],
    [node("ReduceMean", POSITIVE, "axes")],
    [node("Concat", POSITIVE, POSITIVE, axis=1)],
    [node("Resize", POSITIVE, "", "twice", mode="nearest")],
    [node("Resize", POSITIVE, "", "twice", mode="linear")],
    [node("Add", POSITIVE, "half")],
    [helper.make_node("Sigmoid", [SIGNED], ["gate"]), helper.make_node("Mul", [POSITIVE, "gate"], ["m"]), node("Add", "m", POSITIVE)],
    [node("Max", SIGNED, "zero")],
    [node("Clip", SIGNED, "zero")],
    [node("Split", POSITIVE, axis=1, num_outputs=1)],
]
PERHAPS = [
    [node("Identity", SIGNED)],
    [node("Concat", POSITIVE, SIGNED, axis=1)],
    [node("Resize", POSITIVE, "", "twice", mode="cubic")],
    [node("Add", POSITIVE, "minus")],
    [node("Mul", POSITIVE, "minus")],
    [node("Mul", POSITIVE, SIGNED)],
    [node("Max", SIGNED, "minus")],
    [node("Clip", SIGNED, "minus")],
    [node("Clip", SIGNED, "", "half")],
    [node("LeakyRelu", POSITIVE)],  # not known, though it is
]


def found(proto: onnx.ModelProto) -> bool:
    made = parse_model(proto.SerializeToString())
    return made.graph.outputs[0] in never_negative(made.graph)


@pytest.mark.parametrize("nodes", NEVER, ids=lambda nodes: nodes[-1].op_type)
def test_never_negative(nodes: Sequence[onnx.NodeProto]) -> None:
    proto = model(*nodes)
    assert found(proto)
    feed = np.random.default_rng(0).standard_normal((1, 4, 6, 6)).astype(np.float32)
    assert run_model(proto.SerializeToString(), {"x": feed})["y"].min() >= 0


@pytest.mark.parametrize("nodes", PERHAPS, ids=lambda nodes: nodes[-1].op_type)
def test_what_may_be_negative(nodes: Sequence[onnx.NodeProto]) -> None:
    assert not found(model(*nodes))


def joined() -> onnx.ModelProto:
    """What two ReLUs gave, joined and weighed by a sigmoid of its means, and a convolution that reads it."""
    make = Maker()
    features = make.features()
    make.weight("w_more", CHANNELS, CHANNELS, 3, 3)
    make.add("Conv", [features, "w_more"], "more", pads=[1] * 4)
    make.add("Concat", [features, make.add("Relu", ["more"], "more_relu")], "both", axis=1)
    make.add("Sigmoid", [make.add("GlobalAveragePool", ["both"], "mean")], "gate")
    make.add("Mul", ["both", "gate"], "weighed")
    make.weight("w_joined", CHANNELS, 2 * CHANNELS, 3, 3)
    return make.finish(make.add("Conv", ["weighed", "w_joined"], "joined", pads=[1] * 4))


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_all_levels_of_a_byte_are_above_zero(backend: Backend) -> None:
    proto, feed = joined(), image()
    read = foreign(proto)
    ranges = ranges_of_run(read, feed)
    prepared = prepare_model(read, backend, BuildOptions(precision="int8", threads=1), ranges)
    zero, scale = (constant(prepared.graph.initializers[f"weighed/activation_{part}"]) for part in ("zero_point", "scale"))
    assert zero is not None and scale is not None  # noqa: PT018
    assert int(zero) == 0
    assert float(scale) == pytest.approx(ranges.amax["weighed"] / 255)
    assert error(exact(prepared, feed), exact(proto, feed)) < 0.02
