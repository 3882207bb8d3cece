"""FP16 of models from elsewhere: what FP16 cannot hold stays in FP32 or is clamped, it is said, and the graph is valid and computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from elsewhere_models import CHANNELS, SIZE, Maker, error, exact, foreign, image, three_convolutions
from onnx import TensorProto, helper, numpy_helper

from rtformer_deploy.backends.tensorrt.check import check_graph
from rtformer_deploy.errors import BuildError, ModelError
from rtformer_deploy.formats.model_file import serialize_model
from rtformer_deploy.graph.edit import constant
from rtformer_deploy.graph.notes import notes_of
from rtformer_deploy.pipeline import prepare_model
from rtformer_deploy.types import Backend, BuildOptions

FP16 = BuildOptions(precision="fp16", threads=1)
H, W = SIZE[0] // 2, SIZE[1] // 2
F = TensorProto.FLOAT


def _value(name: str, shape: list[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, F, shape)


def branches(make: Maker) -> str:
    """An If whose branches read a tensor and a weight from outside."""
    last = make.features()
    shape = [1, CHANNELS, H, W]
    make.weight("w_then", CHANNELS, CHANNELS, 3, 3)
    yes = helper.make_graph([helper.make_node("Conv", [last, "w_then"], ["t"], pads=[1] * 4)], "yes", [], [_value("t", shape)])
    no = helper.make_graph([helper.make_node("Mul", [last, last], ["e"])], "no", [], [_value("e", shape)])
    make.add("ReduceMax", [last], "peak", keepdims=0)
    make.add("Less", ["peak", make.constant("limit", np.float32(100))], "small")
    return make.add("If", ["small"], "chosen", then_branch=yes, else_branch=no)


def loop(make: Maker) -> str:
    """A Loop that adds a tensor from outside to its state, three times."""
    last = make.features()
    shape = [1, CHANNELS, H, W]
    body = helper.make_graph(
        [helper.make_node("Add", ["state", last], ["next"]), helper.make_node("Identity", ["going"], ["still"])],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            _value("state", shape),
        ],
        [helper.make_tensor_value_info("still", TensorProto.BOOL, []), _value("next", shape)],
    )
    make.constant("three", np.array(3, np.int64))
    make.constant("true", np.array(True))
    return make.add("Loop", ["three", "true", last], "looped", body=body)


def scan(make: Maker) -> str:
    """A Scan over the columns that keeps a running sum."""
    last = make.features()
    body = helper.make_graph(
        [helper.make_node("Add", ["sum", "column"], ["next"]), helper.make_node("Identity", ["next"], ["out"])],
        "body",
        [_value("sum", [1, CHANNELS, H]), _value("column", [1, CHANNELS, H])],
        [_value("next", [1, CHANNELS, H]), _value("out", [1, CHANNELS, H])],
    )
    make.constant("zeros", np.zeros((1, CHANNELS, H), np.float32))
    make.nodes.append(
        helper.make_node(
            "Scan", ["zeros", last], ["end", "sums"], name="/sums", body=body, num_scan_inputs=1, scan_input_axes=[3], scan_output_axes=[3]
        )
    )
    return make.add("Mul", ["sums", make.constant("share", np.float32(1 / W))], "scanned")


def _join(make: Maker, extra: str) -> str:
    return make.add("Concat", ["features", extra], "joined", axis=1)


def filled(make: Maker) -> str:
    make.features()
    make.add("Shape", ["features"], "shape")
    half = helper.make_tensor("value", F, [1], [0.5])
    return _join(make, make.add("Mul", [make.add("ConstantOfShape", ["shape"], "ones", value=half), "features"], "half"))


def zeros(make: Maker) -> str:
    make.features()
    make.add("Shape", ["features"], "shape")
    return _join(make, make.add("Add", [make.add("ConstantOfShape", ["shape"], "zeros"), "features"], "same"))


def big_index(make: Maker) -> str:
    """Indices above 65504 as numbers, brought back into range."""
    make.features()
    count = CHANNELS * H * W
    for name, value in (("start", 0.0), ("end", 20.0 * count), ("step", 20.0)):
        make.constant(name, np.float32(value))
    make.add("Range", ["start", "end", "step"], "indices")
    make.add("Reshape", ["indices", make.constant("picture", np.array([1, CHANNELS, H, W], np.int64))], "grid")
    return _join(make, make.add("Div", ["grid", make.constant("count", np.float32(20.0 * count))], "share"))


def counted(make: Maker) -> str:
    """A comparison as numbers, one-hot numbers, and a unit matrix of the type of its input."""
    make.features()
    make.add("Greater", ["features", make.constant("limit", np.float32(0.2))], "above")
    make.add("Cast", ["above"], "number", to=F)
    make.add("ArgMax", ["features"], "best", axis=1, keepdims=0)
    make.constant("depth", np.array(CHANNELS, np.int64))
    make.add("OneHot", ["best", "depth", make.constant("values", np.array([0.0, 1.0], np.float32))], "hot", axis=1)
    make.add("ReduceMean", ["features"], "square", axes=[0, 1], keepdims=0)
    make.add("EyeLike", ["square"], "eye")
    make.add("Add", ["number", "hot"], "sum")
    return _join(make, make.add("Add", ["sum", "eye"], "all"))


def masked(fill: float, how: str) -> Callable[[Maker], str]:
    """Attention over the pixels with a mask of `fill`: chosen by Where, added, multiplied into it, or made by ConstantOfShape."""

    def build(make: Maker) -> str:
        make.features()
        make.constant("fill", np.float32(fill))
        make.constant("limit", np.float32(0.1))
        make.add("Greater", ["features", "limit"], "keep")
        if how == "where":
            make.add("Where", ["keep", "features", "fill"], "scores_masked")
        elif how == "filler":
            make.add("Shape", ["features"], "shape")
            make.add("ConstantOfShape", ["shape"], "fills", value=helper.make_tensor("value", F, [1], [fill]))
            make.add("Where", ["keep", "features", "fills"], "scores_masked")
        elif how == "product":
            make.add("Cast", ["keep"], "kept", to=F)
            make.add("Sub", [make.constant("one", np.float32(1)), "kept"], "dropped")
            make.add("Add", ["features", make.add("Mul", ["dropped", "fill"], "mask")], "scores_masked")
        else:
            table = np.zeros((1, 1, H, W), np.float32)
            table[..., : W // 2] = fill
            make.add("Add", ["features", make.constant("mask", table)], "scores_masked")
        make.add("Reshape", ["scores_masked", make.constant("flat", np.array([1, CHANNELS, H * W], np.int64))], "flat_scores")
        make.add("Softmax", ["flat_scores"], "weights", axis=-1)
        make.add("Mul", ["weights", make.constant("pixels", np.float32(H * W))], "even")
        return _join(make, make.add("Reshape", ["even", make.constant("picture", np.array([1, CHANNELS, H, W], np.int64))], "attention"))

    return build


def overflowing(make: Maker) -> str:
    """Sums over the whole picture that exceed FP16, and come back by a division."""
    make.features()
    make.add("Mul", ["features", make.constant("factor", np.float32(3000))], "large")
    make.add("ReduceSum", ["large", make.constant("axes", np.array([2, 3], np.int64))], "sums")
    return _join(make, make.add("Div", ["large", make.add("Add", ["sums", make.constant("one", np.float32(1))], "norm")], "normal"))


def factor(make: Maker) -> str:
    """A factor that FP16 does not hold, undone by its inverse, which FP16 rounds to zero."""
    make.features()
    make.add("Mul", ["features", make.constant("up", np.float32(3e9))], "large")
    return _join(make, make.add("Mul", ["large", make.constant("down", np.float32(1 / 3e9))], "back"))


def epsilon(make: Maker) -> str:
    """A normalisation of channels of which some are zero; FP16 would round its epsilon to zero and divide zero by zero."""
    make.features()
    alive = (np.arange(CHANNELS) % 2).astype(np.float32).reshape(1, CHANNELS, 1, 1)
    make.add("Mul", ["features", make.constant("alive", alive)], "dead")
    make.add("ReduceMax", ["dead"], "peak", axes=[2, 3])
    return _join(make, make.add("Div", ["dead", make.add("Add", ["peak", make.constant("eps", np.float32(1e-12))], "safe")], "normal"))


def bounded(make: Maker) -> str:
    """A Clip that only has a lower bound, written with the largest number of FP32 as the upper one."""
    make.features()
    make.constant("least", np.float32(0.1))
    return _join(make, make.add("Clip", ["features", "least", make.constant("most", np.float32(3.4e38))], "clipped"))


KINDS: dict[str, tuple[Callable[[Maker], str], str | None]] = {
    "branches": (branches, "FP16 leaves 1 node in FP32, with all inside: /chosen."),
    "loop": (loop, "FP16 leaves 1 node in FP32, with all inside: /looped."),
    "scan": (scan, "FP16 leaves 1 node in FP32, with all inside: /sums."),
    "filled": (filled, None),
    "zeros": (zeros, None),
    "big index": (big_index, "FP16 leaves 3 nodes in FP32, whose values it cannot hold: /indices, /grid, /share"),
    "counted": (counted, None),
    "where": (masked(-1e9, "where"), "FP16 clamps 1 constant of a mask or a bound to the largest number that it holds: fill."),
    "float minimum": (masked(-3.4e38, "where"), "FP16 clamps 1 constant of a mask or a bound to the largest number that it holds: fill."),
    "added": (masked(-1e9, "added"), "FP16 clamps 1 constant of a mask or a bound to the largest number that it holds: mask."),
    "product": (masked(-1e9, "product"), "FP16 clamps 1 constant of a mask or a bound to the largest number that it holds: fill."),
    "filler": (masked(-1e9, "filler"), "FP16 clamps 1 constant of a mask or a bound to the largest number that it holds: fills."),
    "infinite": (masked(-np.inf, "where"), None),
    "overflowing": (overflowing, "FP16 leaves 3 nodes in FP32, whose values it cannot hold: /sums, /norm, /normal."),
    "factor": (factor, "FP16 leaves 2 nodes in FP32, whose values it cannot hold: /large, /back."),
    "epsilon": (epsilon, None),
    "bounded": (bounded, "FP16 clamps 1 constant of a mask or a bound to the largest number that it holds: most."),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_fp16_cannot_hold_is_kept_or_clamped_and_said(kind: str) -> None:
    build, note = KINDS[kind]
    make = Maker()
    last = build(make)
    proto = make.finish(last, 2 * CHANNELS if last == "joined" else CHANNELS)
    feed = image()
    prepared = prepare_model(foreign(proto), "tensorrt", FP16, probe=feed)
    check_graph(prepared, serialize_model(prepared), {"image": feed})
    assert error(exact(prepared, feed), exact(proto, feed)) < 3e-3
    told = " ".join(notes_of(prepared))
    assert (note in told) if note else not told, told
    types = {node.op_type: node.outputs[0].dtype for node in prepared.graph}
    assert types["Conv"] == ir.DataType.FLOAT16


def test_without_a_probe_the_graph_is_valid_all_the_same() -> None:
    for kind, (build, _) in KINDS.items():
        make = Maker()
        last = build(make)
        model = foreign(make.finish(last, 2 * CHANNELS if last == "joined" else CHANNELS))
        prepared = prepare_model(model, "tensorrt", FP16)
        check_graph(prepared, serialize_model(prepared), {"image": image()})
        assert kind


def upsampled(opset: int) -> onnx.ModelProto:
    """An upsampling at the end: Upsample at opset 9, Resize with and without a region of interest afterwards."""
    make = Maker(opset)
    make.weight("w", CHANNELS, CHANNELS, 1, 1)
    make.add("Conv", [make.features(), "w"], "small")
    make.constant("scales", np.array([1, 1, 2, 2], np.float32))
    if opset == 9:
        make.add("Upsample", ["small", "scales"], "large", mode="nearest")
    elif opset == 10:
        make.add("Resize", ["small", "scales"], "large", mode="nearest")
    else:
        roi = make.constant("roi", np.zeros(8, np.float32)) if opset == 11 else ""
        make.add("Resize", ["small", roi, "scales"], "large", mode="nearest")
    return make.model("large", (1, CHANNELS, *SIZE))


@pytest.mark.parametrize("opset", [9, 10, 11, 13, 19])
def test_scales_and_regions_of_a_resize_stay_fp32(opset: int) -> None:
    proto, feed = upsampled(opset), image()
    prepared = prepare_model(foreign(proto), "tensorrt", FP16, probe=feed)
    check_graph(prepared, serialize_model(prepared), {"image": feed})
    node = next(node for node in prepared.graph if node.op_type in ("Upsample", "Resize"))
    assert node.outputs[0].dtype == ir.DataType.FLOAT16
    assert {value.dtype for value in node.inputs[1:] if value is not None} == {ir.DataType.FLOAT}
    assert error(exact(prepared, feed), exact(proto, feed)) < 3e-3


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx", "openvino", "onnxruntime"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_broken_weight_is_refused_on_every_backend(backend: Backend, value: float) -> None:
    proto = three_convolutions()
    for tensor in proto.graph.initializer:
        if tensor.name == "w2":
            array = numpy_helper.to_array(tensor).copy()
            array[3, 2, 1, 1] = value
            tensor.CopyFrom(numpy_helper.from_array(array, "w2"))
    word = "NaN" if np.isnan(value) else "infinity"
    with pytest.raises(ModelError, match=f"The weight w2 of Conv /c2 holds {word}: the weights are broken"):
        prepare_model(foreign(proto), backend, BuildOptions())


def test_a_sequence_stays_as_it_was_in_the_callers_model() -> None:
    make = Maker()
    make.features()
    make.add("SplitToSequence", ["features"], "parts", axis=1)
    make.add("SequenceAt", ["parts", make.constant("third", np.array(2, np.int64))], "part")
    model = foreign(make.finish(make.add("Mul", ["features", "part"], "middle")))
    before = serialize_model(model)
    prepared = prepare_model(model, "tensorrt", FP16, probe=image())
    assert serialize_model(model) == before
    assert error(exact(prepared, image()), exact(model, image())) < 3e-3


def random_fill(make: Maker) -> str:
    make.features()
    noise = helper.make_node("RandomNormalLike", ["features"], ["noise"], name="/noise", dtype=F, scale=0.01)
    make.nodes += [noise, helper.make_node("RandomUniform", [], ["more"], name="/more", shape=[1, CHANNELS, H, W])]
    return _join(make, make.add("Add", ["noise", "more"], "random"))


def test_random_numbers_have_the_type_of_their_readers() -> None:
    make = Maker()
    prepared = prepare_model(foreign(make.finish(random_fill(make), 2 * CHANNELS)), "tensorrt", FP16, probe=image())
    check_graph(prepared, serialize_model(prepared), {"image": image()})


def test_a_graph_that_does_not_compute_does_not_reach_tensorrt() -> None:
    feed: dict[str, Any] = {"image": image()}

    def refused(change: Callable[[ir.Model], object]) -> str:
        prepared = prepare_model(foreign(three_convolutions()), "tensorrt", FP16, probe=image())
        change(prepared)
        with pytest.raises(BuildError) as caught:
            check_graph(prepared, serialize_model(prepared), feed)
        return str(caught.value)

    def first(model: ir.Model) -> ir.Node:
        return next(node for node in model.graph if node.op_type == "Conv")

    def mixed_types(model: ir.Model) -> None:
        weight = first(model).inputs[1]
        array = constant(weight)
        assert weight is not None and array is not None  # noqa: PT018
        weight.const_value = ir.tensor(array.astype(np.float32), name=weight.name)
        weight.dtype = ir.DataType.FLOAT

    def overflow(model: ir.Model) -> None:
        weight = first(model).inputs[1]
        array = constant(weight)
        assert weight is not None and array is not None  # noqa: PT018
        weight.const_value = ir.tensor(np.full_like(array, np.inf), name=weight.name)

    def foreign_domain(model: ir.Model) -> None:
        node = first(model)
        node.domain, node.op_type = "com.microsoft", "FusedConv"

    assert "not valid ONNX" in refused(mixed_types)
    assert "NaN or infinity on the sample frame" in refused(overflow)
    assert "FusedConv (com.microsoft)" in refused(foreign_domain)
