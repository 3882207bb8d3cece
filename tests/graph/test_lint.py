"""The lint is silent about our own placement on its own target, and names what costs a fusion."""

from __future__ import annotations

from exports import exported
from onnx_parts import producer
from test_qdq import ranges

from rtformer_deploy.graph.edit import clone
from rtformer_deploy.graph.lint import lint
from rtformer_deploy.graph.qdq import to_qdq


def test_no_qdq_no_findings() -> None:
    assert lint(exported().model) == []


def test_our_placement_costs_nothing_on_its_target() -> None:
    for_gpu = lint(to_qdq(clone(exported().model), ranges(), "tensorrt"))
    assert for_gpu
    assert {finding.where for finding in for_gpu} == {"ONNX Runtime, OpenVINO", "ONNX Runtime"}
    for_cpu = lint(to_qdq(clone(exported().model), ranges(), "openvino"))
    assert {finding.where for finding in for_cpu} == {"TensorRT 10/11, RTX", "ONNX Runtime"}
    assert any("skip input" in finding.why for finding in for_cpu)
    assert any("zero point" in finding.why for finding in for_cpu)
    for_onnxruntime = lint(to_qdq(clone(exported().model), ranges(), "onnxruntime"))
    assert for_onnxruntime
    assert not any("ONNX Runtime" in finding.where for finding in for_onnxruntime)


def test_a_placement_that_splits_a_convolution_from_its_relu_is_named() -> None:
    model = to_qdq(clone(exported().model), ranges(), "tensorrt")
    convolution = next(node for node in model.graph if node.name == "layer1.0.bn1")
    activation = producer(convolution.inputs[0])
    relu = next(node for node in model.graph if node.name == "layer1.0/Relu")
    quantize = producer(activation.inputs[0])
    quantize.replace_input_with(0, convolution.outputs[0])
    relu.replace_input_with(0, activation.outputs[0])
    assert any(finding.node == "layer1.0/Relu" and "one kernel" in finding.why for finding in lint(model))
