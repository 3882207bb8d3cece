"""INT8 of models from elsewhere: scales along the right axis, tiny values, weights in any form, models that are quantised already."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from elsewhere_models import (
    CHANNELS,
    Maker,
    computed_weights,
    error,
    exact,
    foreign,
    half_inside,
    image,
    ranges_of_run,
    spec,
    three_convolutions,
    unnamed_constants,
    weighted,
)
from onnx import TensorProto, helper

from rtformer_deploy.backends import build
from rtformer_deploy.backends.tensorrt.check import check_graph
from rtformer_deploy.errors import ModelError
from rtformer_deploy.formats.model_file import serialize_model
from rtformer_deploy.graph.edit import clone, constant
from rtformer_deploy.graph.fp32 import to_fp32
from rtformer_deploy.graph.notes import notes_of
from rtformer_deploy.graph.qdq import SHORT_LEVELS, to_qdq
from rtformer_deploy.graph.quantised import quantised
from rtformer_deploy.graph.weights import weight_of
from rtformer_deploy.pipeline import prepare_model
from rtformer_deploy.types import Backend, BuildOptions, Ranges

INT8 = BuildOptions(precision="int8", threads=1)
RANK1, RANK2, RANK3 = ("conv1d", "transposed1d"), ("conv2d", "depthwise", "transposed2d", "transposed_groups"), ("conv3d", "transposed3d")
PRODUCTS = ("gemm", "gemm_turned", "matmul_right", "matmul_left")
#: kind -> the axis of the output channels, and how many scales there are
AXES = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "depthwise", "gemm_turned", "matmul_left"), (0, 16)),
    **dict.fromkeys(("transposed1d", "transposed2d", "transposed3d", "gemm", "matmul_right"), (1, 16)),
    "transposed_groups": (1, 8),
}


@pytest.mark.parametrize("kind", [*RANK1, *RANK2, *RANK3, *PRODUCTS])
def test_scales_follow_the_rank_and_the_output_channels_of_a_weight(kind: str) -> None:
    proto = weighted(kind)
    model, feed = foreign(proto), image()
    ranges, wanted = ranges_of_run(model, feed), exact(proto, feed)
    weights = constant(model.graph.initializers["w"])
    assert weights is not None
    for backend in ("openvino", "tensorrt-rtx"):
        prepared = prepare_model(model, backend, INT8, ranges, probe=feed)
        node = next(node for node in prepared.graph if str(node.name).endswith("/weight/dequantize"))
        axis, count = AXES[kind]
        levels, scales = (constant(value) for value in node.inputs[:2])
        assert levels is not None and scales is not None  # noqa: PT018
        assert (node.attributes["axis"].as_int(), scales.shape) == (axis, (count,))
        assert levels.shape == weights.shape
        assert np.abs(levels).max(axis=tuple(each for each in range(weights.ndim) if each != axis)).min() > 120  # each channel in full
        assert error(exact(prepared, feed), wanted) < 0.02


@pytest.mark.parametrize("kind", ["conv1d", "conv2d", "conv3d", "depthwise", "gemm", "gemm_turned", "matmul_right"])
def test_uneven_channels_do_not_share_a_scale_on_onnxruntime(kind: str) -> None:
    proto = weighted(kind)
    model, feed = foreign(proto), image()
    prepared = prepare_model(model, "onnxruntime", INT8, ranges_of_run(model, feed))
    assert error(exact(prepared, feed), exact(proto, feed)) < 0.02


@pytest.mark.parametrize("kind", ["transposed2d", "matmul_left"])
def test_what_no_kernel_takes_is_said(kind: str) -> None:
    model = foreign(weighted(kind))
    told = r"2 with fewer than 16 channels, 1 for which ONNX Runtime has no eight-bit kernel"
    with pytest.raises(ModelError, match=told):
        prepare_model(model, "onnxruntime", INT8, ranges_of_run(model, image()))


FORMS: dict[str, Callable[[onnx.ModelProto], onnx.ModelProto]] = {
    "constants": unnamed_constants,
    "computed": computed_weights,
    "half inside": lambda proto: half_inside(proto, ends=False),
    "half ends": lambda proto: half_inside(proto, ends=True),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime", "tensorrt-rtx"])
def test_weights_of_any_form_are_quantised(form: str, backend: Backend) -> None:
    plain = three_convolutions()
    model = foreign(FORMS[form](plain))
    feed = image()
    if form == "half ends":  # an engine takes FP32
        to_fp32(model)
    prepared = prepare_model(model, backend, INT8, ranges_of_run(model, feed), probe=feed)
    assert sum(str(node.name).endswith("/weight/dequantize") for node in prepared.graph) == 3
    assert error(exact(prepared, feed), exact(plain, feed)) < 0.03
    assert [value.dtype for value in (*prepared.graph.inputs, *prepared.graph.outputs)] == [ir.DataType.FLOAT] * 2


def test_fewer_levels_for_a_cpu_whose_sums_overflow() -> None:
    proto = three_convolutions()
    model, feed = foreign(proto), image()
    prepared = prepare_model(model, "openvino", INT8, ranges_of_run(model, feed), weight_levels=SHORT_LEVELS)
    stored = [constant(value) for name, value in prepared.graph.initializers.items() if name.endswith("/weight/int8")]
    assert [int(np.abs(array).max()) for array in stored if array is not None] == [63, 63, 63]
    assert error(exact(prepared, feed), exact(proto, feed)) < 0.04


@pytest.mark.parametrize("placement", ["openvino", "onnxruntime", "tensorrt-rtx"])
@pytest.mark.filterwarnings("error")
def test_a_branch_that_died_out_is_zero(placement: Backend) -> None:
    proto = three_convolutions(scale=1e-41)  # subnormal weights, so subnormal values behind them
    model, feed = foreign(proto), image()
    ranges = ranges_of_run(model, feed)
    assert 0 < ranges.amax["c2"] < 1e-38
    prepared = prepare_model(model, placement, INT8, ranges, probe=feed)
    names = {str(node.name) for node in prepared.graph}
    assert {"/c1/weight/dequantize", "/c2/weight/dequantize"} <= names  # what is multiplied by the dead weights is alive
    assert "/c3/weight/dequantize" not in names
    assert not any("r2/" in name for name in names)
    for name, value in prepared.graph.initializers.items():
        array = constant(value)
        assert array is not None
        if name.endswith("scale"):
            assert array.min() >= 2.0**-126
        if name == "/c2/weight/int8":
            assert not array.any()
    assert error(exact(prepared, feed), exact(proto, feed)) < 0.03


def test_a_skip_that_was_zero_is_not_quantised() -> None:
    model = foreign(three_convolutions())
    ranges = ranges_of_run(model, image())

    def skip(amax: float) -> str:
        changed = Ranges({**ranges.amax, "r1": amax}, "minmax", 1, "0" * 64, "foreign")
        graph = to_qdq(clone(model), changed, "tensorrt").graph
        add = next(node for node in graph if node.op_type == "Add")
        return next(producer.op_type for value in add.inputs if value is not None and (producer := value.producer()) is not None)

    assert skip(0.0) == skip(1e-40) == "Relu"


def test_a_quantised_model_is_told_and_refused() -> None:
    model = foreign(three_convolutions())
    ranges = ranges_of_run(model, image())
    twice = to_qdq(clone(model), ranges, "openvino")
    assert quantised(model) is None
    assert quantised(twice) == "6 DequantizeLinear, 3 QuantizeLinear"
    with pytest.raises(ModelError, match=r"quantised already \(6 DequantizeLinear, 3 QuantizeLinear\): --int8 is for models in floating"):
        to_qdq(twice, ranges, "openvino")


@pytest.mark.parametrize("kind", ["conv1d", "transposed_groups", "gemm_turned"])
def test_tensorrt_takes_the_scales(kind: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    model, feed = foreign(weighted(kind)), image()
    engine = build(prepare_model(model, "tensorrt-rtx", INT8, ranges_of_run(model, feed), probe=feed), spec(), "tensorrt-rtx", INT8)
    assert dict(engine.info.precision.layers) == {"fp16": 2, "int8": 1}


@pytest.mark.parametrize("opset", [13, 17])
def test_scales_in_fp16_come_with_the_opset_that_allows_them(opset: int) -> None:
    proto = onnx.version_converter.convert_version(three_convolutions(), opset)
    model, feed = foreign(proto), image()
    prepared = prepare_model(model, "tensorrt", INT8, ranges_of_run(model, feed), probe=feed)
    check_graph(prepared, serialize_model(prepared), {"image": feed})
    scales = [node.inputs[1] for node in prepared.graph if node.op_type == "QuantizeLinear"]
    assert {scale.dtype for scale in scales if scale is not None} == {ir.DataType.FLOAT16}


def test_every_kind_has_its_axis() -> None:
    for kind, (axis, _) in AXES.items():
        found = [weight for node in foreign(weighted(kind)).graph if (weight := weight_of(node)) is not None]
        assert found[1].axis == axis
        assert (found[1].outputs, found[1].inputs) == (16, 16)


def test_convolutions_inside_a_body_are_named_as_left_out() -> None:
    make = Maker()
    make.weight("w1", CHANNELS, CHANNELS, 3, 3)
    make.weight("w_then", CHANNELS, CHANNELS, 3, 3)
    read = make.add("Relu", [make.add("Conv", [make.features(), "w1"], "outside", pads=[1] * 4)], "read")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("t", "e")]
    inside = helper.make_node("Conv", [read, "w_then"], ["t"], name="inside", pads=[1] * 4)
    yes = helper.make_graph([inside], "yes", [], ends[:1])
    no = helper.make_graph([helper.make_node("Mul", [read, read], ["e"], name="squared")], "no", [], ends[1:])
    make.add("ReduceMax", [read], "peak", keepdims=0)
    make.add("Less", ["peak", make.constant("limit", np.float32(100))], "small")
    make.add("If", ["small"], "chosen", then_branch=yes, else_branch=no)
    proto, feed = make.finish("chosen"), image()
    model = foreign(proto)
    prepared = prepare_model(model, "openvino", INT8, ranges_of_run(model, feed))
    assert "INT8 leaves 1 operator inside the bodies of If, Loop and Scan in high precision: inside." in notes_of(prepared)
    assert error(exact(prepared, feed), exact(proto, feed)) < 0.05
