"""half_ends: an FP16 graph whose input and logits are FP16 computes the same bits without the casts at its ends.

ONNX Runtime computes FP16 in FP32 on a CPU and leaves out casts in pairs, so inputs here are FP16 numbers, and outputs are rounded before
they are compared.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from helpers import frames, tiny_model, tiny_spec
from onnx_parts import producer, run_model

from rtformer_deploy.formats.model_file import serialize_model
from rtformer_deploy.graph.clean import name_nodes
from rtformer_deploy.graph.edit import clone
from rtformer_deploy.graph.fp16 import to_fp16
from rtformer_deploy.graph.half_ends import half_ends
from rtformer_deploy.graph.notes import notes_of
from rtformer_deploy.image.frames import preprocess
from rtformer_deploy.types import Head

ROUNDED = "The output logits is computed in FP32 and rounded to FP16, as --io fp16 asks."


def image() -> np.ndarray:
    spec = tiny_spec()
    return preprocess(frames((90, 70))[0], spec.size, spec.mean, spec.std)[None]


def casts(model: ir.Model) -> list[str | None]:
    return [node.name for node in model.graph if node.op_type == "Cast"]


@pytest.mark.parametrize("head", ["lowres", "logits", "labels"])
def test_the_bits_are_the_same_without_the_casts(head: Head) -> None:
    usual = to_fp16(tiny_model(head=head))
    half = name_nodes(half_ends(clone(usual)))
    onnx.checker.check_model(serialize_model(half), full_check=True)
    (source,), (target,) = half.graph.inputs, half.graph.outputs
    assert (source.name, source.dtype) == ("input", ir.DataType.FLOAT16)
    assert (target.name, target.shape) == (usual.graph.outputs[0].name, usual.graph.outputs[0].shape)
    assert target.dtype == (ir.DataType.UINT8 if head == "labels" else ir.DataType.FLOAT16)
    assert len(casts(half)) == len(casts(usual)) - (1 if head == "labels" else 2)
    rounded = image().astype(np.float16)
    given, expected = run_model(half, rounded), run_model(usual, rounded.astype(np.float32))
    np.testing.assert_array_equal(given, expected.astype(given.dtype))
    assert notes_of(half) == ()


def test_nodes_in_fp32_at_the_ends_get_casts_and_the_output_a_note() -> None:
    model = tiny_model()
    for node in model.graph:
        node.name = node.outputs[0].name
    usual = name_nodes(to_fp16(model, fp32=("conv0", "conv2", "logits")))
    half = name_nodes(half_ends(clone(usual)))
    onnx.checker.check_model(serialize_model(half), full_check=True)
    assert [value.dtype for value in (*half.graph.inputs, *half.graph.outputs)] == [ir.DataType.FLOAT16] * 2
    assert producer(producer(half.graph.outputs[0]).inputs[0]).op_type == "Identity"
    assert notes_of(half) == (ROUNDED,)
    rounded = image().astype(np.float16)
    expected = run_model(usual, rounded.astype(np.float32)).astype(np.float16)
    np.testing.assert_array_equal(run_model(half, rounded).view(np.uint16), expected.view(np.uint16))


def test_an_input_that_fp16_and_fp32_read() -> None:
    model = tiny_model()
    for node in model.graph:
        node.name = node.outputs[0].name
    first = next(node for node in model.graph if node.name == "conv0")
    other = ir.node("Conv", list(first.inputs), dict(first.attributes), name="other")
    total = ir.node("Add", [first.outputs[0], other.outputs[0]], name="total")
    for reader, index in list(first.outputs[0].uses()):
        if reader is not total:
            reader.replace_input_with(index, total.outputs[0])
    model.graph.insert_after(first, [other, total])
    usual = name_nodes(to_fp16(model, fp32=("other",)))
    half = name_nodes(half_ends(clone(usual)))
    onnx.checker.check_model(serialize_model(half), full_check=True)
    assert "input/to_fp32" in casts(half)
    rounded = image().astype(np.float16)
    given, expected = run_model(half, rounded), run_model(usual, rounded.astype(np.float32))
    np.testing.assert_array_equal(given, expected.astype(np.float16))
