"""Odd ONNX files: each opens and gives what the file gives, or one message says what is wrong with it."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from foreign_models import SIZE, net, number, reference, save, value, weight
from onnx import TensorProto, helper, numpy_helper

from rtformer_deploy.errors import ModelError, first_line, openvino_reason
from rtformer_deploy.foreign import attempt, read
from rtformer_deploy.formats.external_model import ExternalModel
from rtformer_deploy.formats.model_file import load_model, serialize_model
from rtformer_deploy.formats.sparse import fill_sparse
from rtformer_deploy.graph.notes import notes_of
from rtformer_deploy.graph.run import run_model
from rtformer_deploy.pipeline import prepare_model, read_model
from rtformer_deploy.types import BuildOptions

node = helper.make_node
FLOAT = TensorProto.FLOAT
SHAPE = (1, 4, 8, 12)
IMAGE = np.random.default_rng(7).standard_normal((1, 3, *SIZE)).astype(np.float32)


@pytest.fixture(autouse=True)
def tried_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves a process for each model; that one is used has tests of its own."""

    def observe(path: Path, _hash: str, external: ExternalModel, *_: Any, **__: Any) -> Any:
        return attempt.attempt(path, external)

    monkeypatch.setattr(read, "observe", observe)


def opened(path: Path, **said: Any) -> ir.Model:
    return read_model(path, ExternalModel(mean=(0.5,) * 3, std=(0.25,) * 3, **said))[0]


def gives_the_same(path: Path, **said: Any) -> None:
    (found,) = run_model(serialize_model(opened(path, **said)), {"x": IMAGE}).values()
    np.testing.assert_allclose(found, reference(path, IMAGE), rtol=0, atol=1e-5)


# ------------------------------------------------------------------------------------------------------------ they open

SEQUENCES: dict[str, list[Any]] = {
    "split": [node("SplitToSequence", ["s", "two"], ["q"], axis=1), node("ConcatFromSequence", ["q"], ["y"], axis=1)],
    "at": [node("SequenceConstruct", ["r", "s"], ["q"]), node("SequenceAt", ["q", "one"], ["y"])],
    "identity": [node("SequenceConstruct", ["s"], ["p"]), node("Identity", ["p"], ["q"]), node("SequenceAt", ["q", "zero"], ["y"])],
    "optional": [node("Optional", ["s"], ["q"]), node("OptionalGetElement", ["q"], ["y"])],
    "insert": [
        node("SequenceEmpty", [], ["e"], dtype=FLOAT), node("SequenceInsert", ["e", "s"], ["q"]), node("SequenceAt", ["q", "zero"], ["y"])
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", SEQUENCES)
def test_sequences_between_the_nodes_are_no_tensors(kind: str, tmp_path: Path) -> None:
    nodes, weights = net(*SEQUENCES[kind])
    gives_the_same(save(tmp_path / "m.onnx", nodes, [*weights, number("two", 2), number("one", 1), number("zero", 0)]))


def test_a_sequence_that_an_if_hands_on_is_no_tensor(tmp_path: Path) -> None:
    def branch(name: str, *read: str) -> onnx.GraphProto:
        made = helper.make_tensor_sequence_value_info(f"q_{name}", FLOAT, None)
        return helper.make_graph([node("SequenceConstruct", list(read), [f"q_{name}"])], name, [], [made])

    end = [node("If", ["c"], ["q"], then_branch=branch("a", "s"), else_branch=branch("b", "s", "s")), node("SequenceAt", ["q", "i"], ["y"])]
    nodes, weights = net(*end)
    gives_the_same(save(tmp_path / "m.onnx", nodes, [*weights, number("i", 0), number("c", True, np.bool_)]))


@pytest.mark.parametrize("rank", [1, 2], ids=["linear", "coordinates"])
def test_sparse_weights_are_written_out(rank: int, tmp_path: Path) -> None:
    nodes, (first, last) = net()
    dense = numpy_helper.to_array(last)
    places = np.arange(0, dense.size, 3)
    kept = np.zeros_like(dense)
    kept.flat[places] = dense.flat[places]
    expected = save(tmp_path / "dense.onnx", nodes, [first, numpy_helper.from_array(kept, "w2")])
    indices = places if rank == 1 else np.stack(np.unravel_index(places, dense.shape), 1)
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(dense.flat[places], "w2"), numpy_helper.from_array(indices.astype(np.int64), "i"), dense.shape
    )
    model = onnx.load(save(tmp_path / "m.onnx", nodes, [first]))
    model.graph.sparse_initializer.append(sparse)
    onnx.save(model, tmp_path / "m.onnx")
    (found,) = run_model(serialize_model(opened(tmp_path / "m.onnx")), {"x": IMAGE}).values()
    np.testing.assert_allclose(found, reference(expected, IMAGE), rtol=0, atol=1e-5)


def test_a_sparse_constant_of_a_function_is_written_out() -> None:
    sparse = helper.make_sparse_tensor(numpy_helper.from_array(np.array([5.0], np.float32), "v"), number("i", [1]), [3])
    body = [helper.make_node("Constant", [], ["y"], sparse_value=sparse)]
    function = helper.make_function("own", "Three", [], ["y"], body, [helper.make_opsetid("", 18)])
    graph = helper.make_graph([], "g", [], [])
    model = helper.make_model(graph, functions=[function])
    fill_sparse(model, "m.onnx")
    (attribute,) = model.functions[0].node[0].attribute
    np.testing.assert_array_equal(numpy_helper.to_array(attribute.t), [0, 5, 0])


@pytest.mark.parametrize(("dims", "index"), [((1 << 20, 1 << 20), 3), ((4, 16, 1, 1), 64)], ids=["large", "beyond"])
def test_sparse_weights_that_do_not_fit_are_refused(dims: tuple[int, ...], index: int, tmp_path: Path) -> None:
    nodes, (first, _) = net()
    model = onnx.load(save(tmp_path / "m.onnx", nodes, [first]))
    sparse = onnx.SparseTensorProto(values=number("w2", [1.0], np.float32), indices=number("i", [index]), dims=dims)
    model.graph.sparse_initializer.append(sparse)
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"The sparse weight w2 of .*m\.onnx (is 1048576x1048576, which is more|cannot be read: index 64)"):
        load_model(tmp_path / "m.onnx")


def test_an_output_that_is_listed_twice_is_one(tmp_path: Path) -> None:
    gives_the_same(save(tmp_path / "m.onnx", *net(), outputs=[value("y", SHAPE)] * 2))


@pytest.mark.parametrize(
    "unused",
    [
        value("t", (2,), TensorProto.STRING),
        value("t", ("n",), TensorProto.INT64),
        helper.make_tensor_sequence_value_info("t", FLOAT, None),
        helper.make_value_info("t", helper.make_optional_type_proto(helper.make_tensor_type_proto(FLOAT, [1]))),
    ],
    ids=["text", "numbers", "sequence", "optional"],
)
def test_an_input_of_any_type_that_the_classes_do_not_depend_on_is_left_out(unused: onnx.ValueInfoProto, tmp_path: Path) -> None:
    nodes, weights = net()
    path = save(tmp_path / "m.onnx", nodes, weights, inputs=[value("x", (1, 3, *SIZE)), unused])
    (found,) = run_model(serialize_model(opened(path)), {"x": IMAGE}).values()
    np.testing.assert_allclose(found, reference(save(tmp_path / "usual.onnx", nodes, weights), IMAGE), rtol=0, atol=1e-5)


def test_a_model_that_draws_random_numbers_is_told(tmp_path: Path) -> None:
    nodes, weights = net(node("RandomNormalLike", ["s"], ["n"]), node("Add", ["s", "n"], ["y"]))
    model = opened(save(tmp_path / "m.onnx", nodes, weights))
    assert notes_of(model)[0].startswith("The model draws random numbers (RandomNormalLike): ")
    assert notes_of(opened(save(tmp_path / "m.onnx", *net()))) == ()


@pytest.mark.parametrize("version", [3, onnx.IR_VERSION])
def test_every_ir_version_that_onnx_reads_opens(version: int, tmp_path: Path) -> None:
    nodes, weights = net()
    inputs = [value("x", (1, 3, *SIZE)), *(value(each.name, each.dims) for each in weights)]
    path = save(tmp_path / "m.onnx", nodes, weights, inputs=inputs, ir_version=version)
    (found,) = run_model(serialize_model(opened(path)), {"x": IMAGE}).values()
    expected = reference(save(tmp_path / "usual.onnx", nodes, weights), IMAGE)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def before_opset_7(path: Path, *, axis: int) -> Path:
    """A bias of 12 numbers, which opset 6 adds along an axis that it names."""
    nodes, weights = net(node("Add", ["s", "b"], ["y"], broadcast=1, axis=axis))
    weights.append(weight("b", *SHAPE[axis:][:1]))
    inputs = [value("x", (1, 3, *SIZE)), *(value(each.name, each.dims) for each in weights)]
    return save(path, nodes, weights, inputs=inputs, opset=6, ir_version=3)


def test_a_model_from_before_opset_7_is_checked_by_openvino(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = before_opset_7(tmp_path / "m.onnx", axis=3)
    (found,) = run_model(serialize_model(opened(path)), {"x": IMAGE}).values()
    plain = load_model(path)
    bias = plain.graph.initializers["b"].const_value
    assert bias is not None
    nodes, weights = net()
    np.testing.assert_allclose(found, reference(save(tmp_path / "n.onnx", nodes, weights), IMAGE) + bias.numpy(), rtol=0, atol=1e-5)
    with pytest.raises(ModelError, match=r"m\.onnx has opset 6, and onnx does not convert it rightly to opset 13"):
        opened(before_opset_7(tmp_path / "m.onnx", axis=1))  # onnx's converter forgets the axis

    def cannot(data: bytes) -> Any:
        raise RuntimeError("no")

    monkeypatch.setattr(attempt, "compile_model", cannot)
    with pytest.raises(ModelError, match=r"m\.onnx has opset 6, which neither ONNX Runtime nor OpenVINO runs"):
        opened(path)


# ------------------------------------------------------------------------------------------------- they say what is wrong


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", r"it is a Git LFS pointer.*\n.*git lfs pull"),
        (b"\n\n\n<!DOCTYPE html>\n<html>", r"it is a web page\.\n"),
        (gzip.compress(b"model"), "it is compressed by gzip"),
        (b"PK\x03\x04rest", "it is a ZIP archive or a PyTorch file"),
        (b"\x80\x02}q\x00.", "it is a pickle"),
        (b"\x1c\x00\x00\x00TFL3rest", r"it is a TensorFlow Lite model\.\n.*tf2onnx"),
        (b"plain words", "is not an ONNX model"),
    ],
    ids=["lfs", "html", "gzip", "zip", "pickle", "tflite", "text"],
)
def test_a_file_that_is_no_model_is_called_what_it_is(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"opset": 99}, r"m\.onnx has opset 99; the installed onnx knows those up to \d+\.\nInstall a newer onnx"),
        ({"ir_version": 99}, r"m\.onnx has IR version 99; the installed onnx reads those up to \d+\.\nInstall a newer onnx"),
    ],
)
def test_a_file_of_a_newer_onnx_is_refused_by_its_version(changes: dict[str, int], message: str, tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", *net(), **changes)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=message):
        load_model(path)


def test_a_tensor_that_nothing_gives_is_named(tmp_path: Path) -> None:
    nodes, weights = net(node("Add", ["s", "nowhere"], ["y"], name="sum"))
    with pytest.raises(ModelError, match=r"m\.onnx is not a valid ONNX model: the node sum \(Add\) reads nowhere, which nothing gives"):
        load_model(save(tmp_path / "m.onnx", nodes, weights))
    body = helper.make_graph([node("Add", ["s", "inner"], ["t"])], "b", [], [value("t", None)])
    nodes, weights = net(node("If", ["c"], ["y"], then_branch=body, else_branch=body))
    with pytest.raises(ModelError, match="a node Add reads inner, which nothing gives"):
        load_model(save(tmp_path / "m.onnx", nodes, [*weights, number("c", True, np.bool_)]))


TEXT = numpy_helper.from_array(np.array(list("abcd"), object), "names")


@pytest.mark.parametrize(
    ("end", "weights", "changes", "message"),
    [
        ([], [], {"inputs": [value("x", (0, 3, *SIZE))]}, "the input x is float32 0x3x16x24, which holds no picture"),
        (
            [node("Slice", ["s", "none", "none", "one"], ["y"])],
            [number("none", [0]), number("one", [1])],
            {"outputs": [value("y", None)]},
            "the output y is 1x0x8x12, which holds nothing",
        ),
        (
            [node("ArgMax", ["s"], ["i"], axis=1, keepdims=0), node("Gather", ["names", "i"], ["y"])],
            [TEXT],
            {"outputs": [value("y", None, TensorProto.STRING)]},
            r"the output y \(text 1x8x12\) is no tensor of scores or labels",
        ),
        (
            [node("SequenceConstruct", ["s"], ["y"])],
            [],
            {"outputs": [helper.make_tensor_sequence_value_info("y", FLOAT, None)]},
            r"the output y \(no tensor\) is no tensor of scores or labels",
        ),
        (
            [node("GlobalAveragePool", ["s"], ["p"]), node("Flatten", ["p"], ["y"])],
            [],
            {"outputs": [value("y", (1, 4))]},
            r"the output y is 1x4: scores must be \(N, classes, h, w\)\.\n.*not those that classify whole pictures",
        ),
    ],
    ids=["no batch", "no classes", "text", "sequence", "classifier"],
)
def test_what_holds_no_classes_for_pixels_is_refused(
    end: list[Any], weights: list[Any], changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    nodes, own = net(*end)
    path = save(tmp_path / "m.onnx", nodes, [*own, *weights], **changes)
    with pytest.raises(ModelError, match=message):
        opened(path)


def test_an_operator_that_nothing_knows_is_named(tmp_path: Path) -> None:
    nodes, weights = net(node("Odd", ["s"], ["y"], domain="f"))
    model = onnx.load(save(tmp_path / "m.onnx", nodes, weights))
    model.opset_import.append(helper.make_opsetid("f", 1))
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError) as caught:
        opened(tmp_path / "m.onnx")
    assert str(caught.value).splitlines() == [
        "Neither ONNX Runtime nor OpenVINO runs this model: Fatal error: f:Odd(-1) is not a registered function/op",
        "OpenVINO: Model wasn't fully converted. No conversion rule found for operations: f.Odd",
    ]


def test_a_librarys_error_is_told_without_places_in_its_sources() -> None:
    error = RuntimeError(
        "[ONNXRuntimeError] : 1 : FAIL : Load model from m.onnx failed:/onnxruntime_src/onnxruntime/core/graph/model.cc:256 "
        "onnxruntime::Model::Model(onnx::ModelProto&&, const logging::Logger&) Unsupported model IR version: 14, max supported IR "
        "version: 13"
    )
    assert first_line(error) == "Load model from m.onnx failed:Unsupported model IR version: 14, max supported IR version: 13"
    assert openvino_reason(RuntimeError("Exception from src/core.cpp:105:\n-- it is too old\n")) == "it is too old"


# ------------------------------------------------------------------------------------------------------- they stay in order


def test_nodes_that_are_called_as_their_outputs_get_names_of_their_own(tmp_path: Path) -> None:
    nodes, weights = net(node("Relu", ["s"], ["y"]))
    for each in nodes:
        each.name = each.output[0]  # as tf2onnx and keras2onnx name them
    model = opened(save(tmp_path / "m.onnx", nodes, weights))
    prepared = prepare_model(model, "tensorrt-rtx", BuildOptions(precision="fp16"))
    names = [each.name for each in prepared.graph.all_nodes()]
    assert len(set(names)) == len(names)
    (found,) = run_model(serialize_model(prepared), {"x": IMAGE}).values()
    (expected,) = run_model(serialize_model(model), {"x": IMAGE}).values()
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.05 * np.abs(expected).max())
