"""Portable files: the attention written out for other readers, and put back for our own passes; the names that inlining gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx_ir as ir
import openvino
import pytest
from attention_model import SIZE, attention_model, attention_spec
from numpy.typing import NDArray
from onnx_parts import constant, run_model

from rtformer_deploy.errors import ModelError
from rtformer_deploy.formats.model_file import parse_model, serialize_model
from rtformer_deploy.graph.edit import clone
from rtformer_deploy.graph.functions import inline_functions
from rtformer_deploy.graph.portable import KEY, is_written_out, put_back, write_out, written_out_notes

_BODY = ("layer4.attn_l/Reshape", "layer4.attn_l/Softmax", "layer4.attn_h/MatMul", "layer4.attn_h/MatMul_1", "layer4.cross_kv.1/ReduceMax")


def image(seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((1, 3, *SIZE)).astype(np.float32)


def portable() -> ir.Model:
    """A portable model as it is read from a file."""
    return parse_model(serialize_model(write_out(attention_model())))


def test_inlined_nodes_are_named_after_their_module_and_tensors_keep_their_names() -> None:
    model = attention_model()
    tensors = {output.name for node in model.graph for output in node.outputs}
    inlined = inline_functions(clone(model))
    names = [str(node.name) for node in inlined.graph]
    assert set(_BODY) <= set(names)
    assert len(names) == len(set(names))
    assert all(name.startswith(("stem", "body.", "layer4.", "layer4/", "head.")) for name in names)
    assert tensors < {output.name for node in inlined.graph for output in node.outputs}


def test_a_portable_model_has_plain_operators_alone_and_computes_the_same() -> None:
    model = portable()
    assert {node.domain for node in model.graph} == {""}
    assert not model.functions
    assert list(model.opset_imports) == [""]
    assert not any(node.op_type == "Constant" for node in model.graph)
    assert np.array_equal(run_model(model, image()), run_model(attention_model(), image()))


def test_what_is_put_back_is_the_model_with_functions_to_the_byte() -> None:
    model = portable()
    assert is_written_out(model)
    put_back(model)
    assert is_written_out(model)
    assert serialize_model(model) == serialize_model(attention_model())
    assert written_out_notes(model) == ()
    assert serialize_model(put_back(attention_model())) == serialize_model(attention_model())


def _other_epsilon(model: ir.Model) -> None:
    model.graph.initializers["epsilon"].const_value = ir.tensor(np.float32(0.1), name="epsilon")


def _other_operator(model: ir.Model) -> None:
    next(node for node in model.graph if node.name == "layer4.attn_l/Softmax").op_type = "LogSoftmax"


def _inner_output(model: ir.Model) -> None:
    softmax = next(node for node in model.graph if node.name == "layer4.attn_l/Softmax").outputs[0]
    softmax.dtype, softmax.shape = ir.DataType.FLOAT, ir.Shape((1, 2, 8, 48))
    model.graph.outputs.append(softmax)


def _other_name(model: ir.Model) -> None:
    next(node for node in model.graph if node.name == "layer4.attn_l/Softmax").name = "mine"


@pytest.mark.parametrize("edit", [_other_epsilon, _other_operator, _inner_output, _other_name])
def test_what_was_changed_after_the_export_counts_as_it_stands(edit: Callable[[ir.Model], None]) -> None:
    model = portable()
    edit(model)
    given = None if edit is _inner_output else run_model(model, image())
    model = put_back(parse_model(serialize_model(model)))
    assert sorted(node.op_type for node in model.graph if node.domain) == ["AdaptiveMaxPool", "CrossResolutionAttention"]
    assert written_out_notes(model) == ("1 of 3 attention operators were changed after the export, so they count as plain operators.",)
    assert given is None or np.array_equal(run_model(model, image()), given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"operator": "Erase"}, "the operator is 'Erase'"),
        ({"nodes": []}, "nodes is a list of 0 values"),
        ({"attributes": {"groups": "2"}}, "attributes.groups is '2'"),
    ],
)
def test_damaged_notes_are_refused(change: dict[str, Any], message: str) -> None:
    model = portable()
    calls = json.loads(model.metadata_props[KEY])
    model.metadata_props[KEY] = json.dumps([{**calls[0], **change}, *calls[1:]])
    with pytest.raises(ModelError, match=message):
        put_back(model)


@pytest.mark.parametrize("change", [{"attributes": {}}, {"attributes": {"groups": 4, "group_size": 8}}, {"inputs": ["input"] * 3}])
def test_notes_that_say_something_else_than_the_nodes_do_not_count(change: dict[str, Any]) -> None:
    model = portable()
    calls = json.loads(model.metadata_props[KEY])
    model.metadata_props[KEY] = json.dumps([{**calls[0], **change}, *calls[1:]])
    put_back(model)
    assert "1 of 3" in written_out_notes(model)[0]
    assert np.array_equal(run_model(model, image()), run_model(attention_model(), image()))


def test_openvinos_own_reader_opens_it(tmp_path: Path) -> None:
    path = _write(tmp_path)
    compiled = openvino.Core().compile_model(openvino.Core().read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    _same(next(iter(compiled({"input": image()}).values())))


@pytest.mark.skipif(int(cv2.__version__.split(".")[0]) < 5, reason="needs OpenCV 5; older ones read fewer operators")
def test_opencv_opens_it(tmp_path: Path) -> None:
    network = cv2.dnn.readNetFromONNX(str(_write(tmp_path)))
    network.setInput(image())
    _same(np.asarray(network.forward(), np.float32))


def test_tensorrt_rtx_parses_it() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    network = trt.Builder(trt.Logger(trt.Logger.ERROR)).create_network(0)
    assert trt.OnnxParser(network, trt.Logger(trt.Logger.ERROR)).parse(serialize_model(portable()))
    assert tuple(network.get_output(0).shape) == attention_spec().output.shape


def _write(folder: Path) -> Path:
    path = folder / "portable.onnx"
    path.write_bytes(serialize_model(portable()))
    return path


def _same(given: NDArray[Any]) -> None:
    wanted = run_model(attention_model(), image())
    assert given.shape == wanted.shape
    assert np.abs(given - wanted).max() < 1e-4 * np.abs(wanted).max()


def test_a_constant_of_the_file_itself_is_kept() -> None:
    model = put_back(portable())
    assert set(model.graph.initializers) == set(attention_model().graph.initializers)
    assert np.array_equal(constant(model.graph.initializers["rows"]), [[0, 1, 2], [3, 4, 5]])
