"""Q/DQ in FP8: which operators, which scales, and what ONNX Runtime computes from it."""

from __future__ import annotations

import dataclasses

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from elsewhere_models import error, exact, foreign, image, ranges_of_run, three_convolutions, weighted
from onnx_parts import constant, producer

from rtformer_deploy.errors import ModelError
from rtformer_deploy.graph.edit import clone
from rtformer_deploy.graph.eight_bits import holds_fp8
from rtformer_deploy.graph.qdq import to_qdq
from rtformer_deploy.pipeline import prepare_model
from rtformer_deploy.types import BuildOptions

FP8 = BuildOptions(precision="fp8", threads=1)
FP8_TYPE = ir.DataType.FLOAT8E4M3FN


def test_scales_are_amax_over_448_and_weights_have_one_a_channel() -> None:
    model, feed = foreign(three_convolutions()), image()
    weights = {name: constant(value) for name, value in model.graph.initializers.items()}
    ranges = ranges_of_run(model, feed)
    prepared = prepare_model(model, "tensorrt-rtx", FP8, ranges, probe=feed)
    assert prepared.opset_imports[""] >= 19
    assert holds_fp8(prepared)
    assert not holds_fp8(model)
    quantizers = [node for node in prepared.graph if node.op_type == "QuantizeLinear"]
    assert len(quantizers) >= 2
    for node in quantizers:
        name = str(node.name).removesuffix("/quantize")
        scale, zero = constant(node.inputs[1]), constant(node.inputs[2])
        assert 1 <= float(scale) * 448 / ranges.amax[name] < 1.001  # rounded up to what FP16 holds, so that nothing is clipped
        assert (zero.dtype, float(zero)) == (ml_dtypes.float8_e4m3fn, 0)
        assert node.outputs[0].dtype == FP8_TYPE
    for node in prepared.graph:
        if not str(node.name).endswith("/weight/dequantize"):
            continue
        levels, scales = (constant(value) for value in node.inputs[:2])
        original = weights[{"/c1": "w1", "/c2": "w2", "/c3": "w3"}[str(node.name).removesuffix("/weight/dequantize")]]
        assert levels.dtype == ml_dtypes.float8_e4m3fn
        assert np.abs(levels.astype(np.float32)).reshape(len(scales), -1).max(1).min() == 448
        back = levels.astype(np.float64) * scales.astype(np.float64).reshape(-1, 1, 1, 1)
        assert np.abs(back - original).max() <= np.abs(original).max() / 16  # three bits of mantissa


def test_it_computes_nearly_what_the_model_does() -> None:
    proto = three_convolutions()
    model, feed = foreign(proto), image()
    prepared = prepare_model(model, "tensorrt-rtx", FP8, ranges_of_run(model, feed), probe=feed)
    found = error(exact(prepared, feed), exact(proto, feed))
    assert 1e-3 < found < 0.1  # FP8 has fewer digits than INT8 has, and it is not FP16


def test_the_same_operators_as_for_int8_are_left_out() -> None:
    model, feed = foreign(three_convolutions()), image()
    ranges = ranges_of_run(model, feed)
    names = [{str(node.name) for node in to_qdq(clone(model), ranges, placement).graph} for placement in ("tensorrt", "tensorrt-fp8")]
    assert names[0] == names[1]
    kept = {str(node.name) for node in to_qdq(clone(model), ranges, "tensorrt-fp8", ["/c2"]).graph}
    assert "/c2/weight/dequantize" not in kept
    assert kept < names[1]


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("depthwise", "transposed or in groups, for which TensorRT has no FP8 kernel"),
        ("transposed2d", "transposed or in groups, for which TensorRT has no FP8 kernel"),
    ],
)
def test_what_has_no_fp8_kernel_is_said(kind: str, why: str) -> None:
    model = foreign(weighted(kind))
    with pytest.raises(ModelError, match=f"1 {why}"):
        prepare_model(model, "tensorrt-rtx", FP8, ranges_of_run(model, image()))


def test_values_beyond_the_range_are_limited() -> None:
    proto = three_convolutions()
    model, feed = foreign(proto), image()
    ranges = ranges_of_run(model, feed)
    half = dataclasses.replace(ranges, amax={name: amax / 2 for name, amax in ranges.amax.items()})
    prepared = prepare_model(model, "tensorrt-rtx", FP8, half, probe=feed)
    assert np.isfinite(exact(prepared, feed)).all()


def test_every_dequantised_copy_feeds_the_operator_in_fp16() -> None:
    model, feed = foreign(three_convolutions()), image()
    prepared = prepare_model(model, "tensorrt-rtx", FP8, ranges_of_run(model, feed), probe=feed)
    weights = [node.outputs[0] for node in prepared.graph if str(node.name).endswith("/weight/dequantize")]
    assert len(weights) == 3
    for node in (reader for value in weights for reader, _ in value.uses()):
        assert producer(node.inputs[0]).op_type == "DequantizeLinear"
        assert [value.dtype for value in node.inputs if value is not None] == [ir.DataType.FLOAT16] * len(node.inputs)
