"""Where Q/DQ goes, and that what comes out still segments as before."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from exports import exported
from helpers import frames

from rtformer_deploy.backends import build, open_engine
from rtformer_deploy.calibrate.collect import Collector, float_tensors
from rtformer_deploy.errors import CalibrationError, ModelError
from rtformer_deploy.graph.edit import clone
from rtformer_deploy.graph.functions import inline_functions
from rtformer_deploy.graph.qdq import to_qdq
from rtformer_deploy.graph.quantizable import Placement
from rtformer_deploy.image.frames import preprocess
from rtformer_deploy.pipeline import build_engine, prepare_model
from rtformer_deploy.types import Backend, BuildOptions, Ranges

INT8 = BuildOptions(precision="int8", threads=1)


@functools.cache
def ranges() -> Ranges:
    """The largest values of the seeded network on one frame."""
    made = exported()
    inlined = inline_functions(clone(made.model))
    collector = Collector(inlined, float_tensors(made.model, inlined), 1)
    frame = frames(made.spec.size)[0]
    collector.show(preprocess(frame, made.spec.size, made.spec.mean, made.spec.std)[None], "the frame")
    amax = {name: histogram.largest for name, histogram in collector.histograms.items()}
    return Ranges(amax, "minmax", 1, made.spec.sha256 or "", made.spec.name)


def quantised(model: ir.Model) -> set[str]:
    """The convolutions that read dequantised activations and weights."""
    found = set()
    for node in model.graph:
        producers = [value.producer() for value in node.inputs[:2] if value is not None]
        if node.op_type == "Conv" and all(p is not None and p.op_type == "DequantizeLinear" for p in producers):
            found.add(str(node.name))
    return found


@pytest.mark.parametrize("placement", ["openvino", "onnxruntime", "tensorrt"])
def test_what_is_quantised_and_what_is_not(placement: Placement) -> None:
    names = quantised(to_qdq(clone(exported().model), ranges(), placement))
    assert len(names) > 40
    assert {"layer1.0.bn1", "layer4.mlp_h.conv2", "spp.process1.2"} <= names
    assert not names & {"conv1.1", "seghead.conv2", "layer4.attn_l/Conv", "layer4.attn_l/Conv_1", "layer4.cross_kv.2"}


def test_activations_are_symmetric_and_weights_have_a_scale_a_channel() -> None:
    for placement, kinds in (("tensorrt", {"int8"}), ("openvino", {"uint8"}), ("onnxruntime", {"uint8"})):
        model = to_qdq(clone(exported().model), ranges(), placement)  # type: ignore[arg-type]
        zeros = []
        for node in model.graph:
            if node.op_type == "QuantizeLinear":
                zero = node.inputs[2]
                assert zero is not None
                assert zero.const_value is not None
                assert zero.const_value.dtype.numpy().name in kinds
                zeros.append(int(zero.const_value.numpy()))
        assert set(zeros) == ({0} if placement == "tensorrt" else {0, 128})
        scale = model.graph.initializers["layer1.0.bn1/weight/scale"]
        assert scale.shape == ir.Shape([32])


def test_a_residual_skip_is_quantised_for_tensorrt_alone() -> None:
    def add_inputs(placement: Placement) -> list[str]:
        model = to_qdq(clone(exported().model), ranges(), placement)
        add = next(node for node in model.graph if node.name == "layer1.0/Add")
        return [producer.op_type for value in add.inputs if value is not None and (producer := value.producer()) is not None]

    assert add_inputs("tensorrt") == ["Conv", "DequantizeLinear"]
    assert add_inputs("openvino") == ["Conv", "Relu"]
    assert add_inputs("onnxruntime") == ["DequantizeLinear", "DequantizeLinear"]


def test_excluded_nodes_stay_as_they_are() -> None:
    names = quantised(to_qdq(clone(exported().model), ranges(), "openvino", ["layer5.*"]))
    assert names
    assert not any(name.startswith("layer5.") for name in names)
    with pytest.raises(ModelError, match="matches no node"):
        to_qdq(clone(exported().model), ranges(), "openvino", ["nowhere*"])


def test_a_missing_range_is_named() -> None:
    amax = {name: value for name, value in ranges().amax.items() if name != "layer1.0/Relu"}
    with pytest.raises(CalibrationError, match=r"no tensor layer1\.0/Relu"):
        to_qdq(clone(exported().model), Ranges(amax, "minmax", 1, "", ""), "openvino")


def test_ranges_of_other_weights_build_nothing() -> None:
    made = exported()
    other = Ranges(ranges().amax, "minmax", 1, "0" * 64, "other")
    with pytest.raises(CalibrationError, match="other weights"):
        build_engine(made.model, made.spec, "onnxruntime", INT8, ranges=other)
    with pytest.raises(CalibrationError, match="needs the ranges"):
        build_engine(made.model, made.spec, "onnxruntime", INT8)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_cpu_engines_have_int8_layers_and_stay_near(backend: Backend) -> None:
    made = exported()
    frame = frames(made.spec.size)
    plain = build(inline_functions(clone(made.model)), made.spec, "onnxruntime", BuildOptions(threads=1))
    engine = build_engine(made.model, made.spec, backend, INT8, ranges=ranges())
    assert engine.info.precision.state == "verified"
    assert engine.info.precision.layers["int8"] > 40
    assert engine.info.ranges_sha256 is not None
    with open_engine(plain, threads=1) as runner:
        wanted = runner.logits(frame)
    with open_engine(engine, threads=1) as runner:
        given = runner.logits(frame)
    assert np.linalg.norm(given - wanted) < 0.2 * np.linalg.norm(wanted)  # random weights pass small errors on


def test_the_rtx_builder_takes_it(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    made = exported()
    engine = build(prepare_model(made.model, "tensorrt-rtx", INT8, ranges()), made.spec, "tensorrt-rtx", INT8)
    assert engine.info.precision.state == "requested"
    assert engine.info.precision.layers["int8"] > 40
