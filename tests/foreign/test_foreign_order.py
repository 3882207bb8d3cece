"""A model from elsewhere comes in order and computes what the file computes, with all optimisation off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from click.testing import CliRunner
from foreign_models import SAID, SIZE, net, number, reference, save, value, weight
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from rtformer_deploy.cli import main
from rtformer_deploy.errors import ModelError
from rtformer_deploy.formats.external_model import ExternalModel
from rtformer_deploy.formats.model_file import load_model, serialize_model
from rtformer_deploy.graph.functions import inline_functions
from rtformer_deploy.pipeline import read_model
from rtformer_deploy.types import ModelSpec

node = helper.make_node
FLOAT = TensorProto.FLOAT
IMAGE = np.random.default_rng(5).standard_normal((1, 3, *SIZE)).astype(np.float32)


def read(path: Path, **said: Any) -> tuple[ir.Model, ModelSpec]:
    return read_model(path, ExternalModel(mean=(0.5,) * 3, std=(0.25,) * 3, **said))


def give(model: ir.Model, image: NDArray[np.float32]) -> NDArray[Any]:
    """What a model in order gives for an image, with all optimisation off."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(serialize_model(inline_functions(model)), options, providers=["CPUExecutionProvider"])
    (source,), (_,) = session.get_inputs(), session.get_outputs()
    assert source.type == "tensor(float)"
    return np.asarray(session.run(None, {source.name: image})[0])


def check_order(model: ir.Model) -> None:
    """What every pass relies on."""
    names = [each.name for each in model.graph.all_nodes()]
    assert all(names)
    assert len(set(names)) == len(names)
    assert not any(each.op_type == "Constant" for each in model.graph)
    assert not {value.name for value in model.graph.inputs} & set(model.graph.initializers)
    assert model.opset_imports[""] >= 13
    assert model.ir_version >= 8
    assert len(model.graph.inputs) == len(model.graph.outputs) == 1
    for each in model.graph:
        for output in each.outputs:
            assert output.dtype is not None, output.name
            assert output.shape is not None, output.name


def old_upsampling(opset: int, mode: str, keep: str) -> tuple[list[Any], list[Any]]:
    """What opsets 9 to 12 write otherwise: Upsample or Resize, Softmax over what follows its axis, axes as attributes."""
    scales = number("scales", [1, 1, 2, 3], np.float32)
    if opset == 9:
        up = node("Upsample", ["s", "scales"], ["u"], mode=mode)
    elif opset == 10:
        up = node("Resize", ["s", "scales"], ["u"], mode=mode)
    else:
        up = node("Resize", ["s", "roi", "scales"], ["u"], mode=mode, coordinate_transformation_mode="align_corners")
    end = [
        up, node("Unsqueeze", ["u"], ["v"], axes=[0]), node("Squeeze", ["v"], ["q"], axes=[0]), node("Softmax", ["q"], ["p"], axis=2),
        node("ReduceMean", ["p"], ["m"], axes=[2, 3]), node("Div", ["p", "m"], ["y"]),
    ]  # fmt: skip
    nodes, weights = net(*end)
    return nodes, [*weights, scales, *([number("roi", np.zeros(0), np.float32)] if opset > 10 else [])]


@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("opset", [9, 10, 11, 12])
def test_old_opsets_are_converted_without_a_change(opset: int, mode: str, tmp_path: Path) -> None:
    nodes, weights = old_upsampling(opset, mode, "")
    path = save(
        tmp_path / "m.onnx", nodes, weights, outputs=[value("y", (1, 4, 16, 36))], opset=opset, ir_version={9: 4, 10: 5}.get(opset, 6)
    )
    expected = reference(path, IMAGE)
    model, spec = read(path)
    check_order(model)
    np.testing.assert_allclose(give(model, IMAGE), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert spec.output.shape == (1, 4, 16, 36)


def test_an_old_opset_is_built_to_int8(tmp_path: Path) -> None:
    nodes, weights = net(node("Conv", ["s", "w3"], ["y"]), classes=16)
    path = save(tmp_path / "m.onnx", nodes, [*weights, weight("w3", 4, 16, 1, 1)], opset=9, ir_version=4)
    (tmp_path / "images").mkdir()
    colours = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    Image.fromarray(colours).save(tmp_path / "images" / "0.png")
    words = ["--int8", "--images", tmp_path / "images", "--backend", "onnxruntime", "-o", tmp_path / "e.plan", *SAID]
    result = CliRunner().invoke(main, list(map(str, ["build-engine", path, *words])))
    assert result.exit_code == 0, result.output
    assert "in int8" in result.output


def test_an_old_opset_that_onnx_cannot_convert_is_built_as_it_is_but_not_to_int8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes, weights = old_upsampling(9, "linear", "")
    path = save(tmp_path / "m.onnx", nodes, weights, outputs=[value("y", (1, 4, 16, 36))], opset=9, ir_version=4)

    def wrong(proto: onnx.ModelProto, _: int) -> onnx.ModelProto:
        """A converter that changes what the model computes."""
        for each in proto.graph.initializer:
            if each.name == "w2":
                each.CopyFrom(
                    numpy_helper.from_array(numpy_helper.to_array(each) * np.arange(4, dtype=np.float32)[:, None, None, None], "w2")
                )
        return proto

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # another test has tried this file
    monkeypatch.setattr(onnx.version_converter, "convert_version", wrong)
    model, _ = read(path)
    assert model.opset_imports[""] == 9
    np.testing.assert_array_equal(give(model, IMAGE), reference(path, IMAGE))
    result = CliRunner().invoke(main, ["build-engine", str(path), "--int8", *SAID, "--ranges", "r.json", "--backend", "openvino"])
    assert result.exit_code == 1


def dynamic(path: Path, shape: Any, out: Any, *, sized: bool = True) -> Path:
    """A network whose upsampling asks for the picture's size, as the old exporter writes it."""
    end = [
        node("Shape", ["x"], ["shape"]), node("Slice", ["shape", "two", "four"], ["hw"]), node("Shape", ["s"], ["low"]),
        node("Slice", ["low", "zero", "two"], ["nc"]), node("Concat", ["nc", "hw"], ["size"], axis=0),
        node("Resize", ["s", "", "", "size"], ["y"], mode="linear", coordinate_transformation_mode="half_pixel"),
    ]  # fmt: skip
    nodes, weights = net(*(end if sized else []))
    numbers = [number("zero", [0]), number("two", [2]), number("four", [4])] if sized else []
    return save(path, nodes, [*weights, *numbers], inputs=[value("x", shape)], outputs=[value("y", out)])


@pytest.mark.parametrize(
    ("shape", "out", "batch"),
    [
        ((1, 3, "height", "width"), (1, "c", "height", "width"), 1),
        ((-1, 3, -1, -1), (-1, -1, -1, -1), "batch"),
        (("n", "c", "h", "w"), None, "batch"),
        (None, None, "batch"),
        ((1, 3, *SIZE), ("a", "b", "c", "d"), 1),
    ],
)
def test_open_dimensions_get_the_chosen_size(shape: Any, out: Any, batch: int | str, tmp_path: Path) -> None:
    path = dynamic(tmp_path / "m.onnx", shape, out)
    model, spec = read(path, input="16x24")
    check_order(model)
    assert spec.input.shape == (batch, 3, *SIZE)
    assert spec.output.shape == (batch, 4, *SIZE)
    assert spec.head == "logits"
    np.testing.assert_array_equal(give(model, IMAGE), reference(path, IMAGE))


def test_an_open_size_that_nobody_says_is_asked_for(tmp_path: Path) -> None:
    path = dynamic(tmp_path / "m.onnx", (1, 3, "h", "w"), None)
    with pytest.raises(ModelError, match=r"--input HxW missing"):
        read(path)
    with pytest.raises(ModelError, match="takes 16xany and nothing else, not 8x24"):
        read(dynamic(tmp_path / "m.onnx", (1, 3, 16, "w"), None), input="8x24")


def test_a_batch_that_is_open_by_name_alone_is_one(tmp_path: Path) -> None:
    nodes, weights = net(node("Reshape", ["s", "fixed"], ["y"]))
    path = save(
        tmp_path / "m.onnx", nodes, [*weights, number("fixed", [1, 4, 8, 12])], inputs=[value("x", ("n", 3, *SIZE))],
        outputs=[value("y", ("n", 4, 8, 12))],
    )  # fmt: skip
    _, spec = read(path)
    assert (spec.input.shape[0], spec.output.shape[0]) == (1, 1)


def test_reflection_padding_as_pytorch_writes_it_has_a_size(tmp_path: Path) -> None:
    nothing = numpy_helper.from_array(np.array([0]))
    end = [
        node("ConstantOfShape", ["four"], ["zeros"], value=nothing),
        node("Concat", ["ones", "zeros"], ["c"], axis=0),
        node("Reshape", ["c", "pairs"], ["p"]),
        node("Slice", ["p", "last", "lowest", "zero", "last"], ["back"]),
        node("Transpose", ["back"], ["t"], perm=[1, 0]),
        node("Reshape", ["t", "last"], ["flat"]),
        node("Cast", ["flat"], ["pads"], to=TensorProto.INT64),
        node("Pad", ["s", "pads"], ["y"], mode="reflect"),
    ]
    nodes, weights = net(*end)
    numbers = {"four": [4], "ones": [1] * 4, "pairs": [-1, 2], "last": [-1], "lowest": [-(2**63) + 1], "zero": [0]}
    path = save(tmp_path / "m.onnx", nodes, [*weights, *(number(*each) for each in numbers.items())], outputs=[value("y", None)])
    model, spec = read(path)
    check_order(model)
    assert spec.output.shape == (1, 4, 10, 14)
    np.testing.assert_array_equal(give(model, IMAGE), reference(path, IMAGE))


@pytest.mark.parametrize("declared", [(1, 4, 4, 6), (1, 4, 16, 24), (1, 9, 8, 12), None])
def test_what_a_file_declares_of_its_output_does_not_count(declared: Any, tmp_path: Path) -> None:
    end = [
        node("Shape", ["s"], ["size"]), node("ReduceMax", ["s"], ["m"], keepdims=0), node("Clip", ["m", "z", "z"], ["c"]),
        node("Cast", ["c"], ["i"], to=TensorProto.INT64), node("Add", ["size", "i"], ["same"]), node("Reshape", ["s", "same"], ["y"]),
    ]  # fmt: skip
    nodes, weights = net(*end)
    path = save(tmp_path / "m.onnx", nodes, [*weights, number("z", 0, np.float32)], outputs=[value("y", declared)])
    model, spec = read(path)
    check_order(model)
    assert spec.output.shape == (1, 4, 8, 12)
    np.testing.assert_array_equal(give(model, IMAGE), reference(path, IMAGE))


def test_names_constants_and_initializers_are_put_in_order(tmp_path: Path) -> None:
    nodes, weights = net()
    plain = save(tmp_path / "plain.onnx", nodes, weights)
    for each in nodes[:2]:
        each.name = "twice"
    made = [node("Constant", [], [each.name], value=each) for each in weights[1:]]
    inputs = [value("x", (1, 3, *SIZE)), value("w1", (16, 3, 3, 3))]
    path = save(tmp_path / "m.onnx", [*made, *nodes], weights[:1], inputs=inputs, ir_version=3)
    model, _ = read(path)
    check_order(model)
    assert [each.name for each in model.graph] == ["twice", "r", "y"]
    np.testing.assert_array_equal(give(model, IMAGE), reference(plain, IMAGE))  # ONNX Runtime refuses names that occur twice


def test_nodes_may_come_in_any_order_but_not_in_a_circle(tmp_path: Path) -> None:
    nodes, weights = net()
    path = save(tmp_path / "m.onnx", nodes[::-1], weights)
    model, _ = read(path)
    check_order(model)
    np.testing.assert_array_equal(give(model, IMAGE), reference(path, IMAGE))
    nodes[0].input[0] = "r"
    with pytest.raises(ModelError, match="contains a cycle"):
        read(save(tmp_path / "m.onnx", nodes, weights))


def test_functions_are_written_out(tmp_path: Path) -> None:
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    inner = helper.make_function("f", "Twice", ["a"], ["b"], [node("Add", ["a", "a"], ["b"])], imports)
    outer = helper.make_function(
        "f", "Four", ["a"], ["b"], [node("Twice", ["a"], ["t"], domain="f"), node("Twice", ["t"], ["b"], domain="f")], imports
    )
    nodes, weights = net(node("Four", ["s"], ["y"], domain="f"))
    path = save(tmp_path / "m.onnx", nodes, weights, functions=[inner, outer])
    model, _ = read(path)
    check_order(model)
    assert not model.functions
    np.testing.assert_array_equal(give(model, IMAGE), reference(path, IMAGE))


@pytest.mark.parametrize(("last", "kind"), [(True, "FLOAT"), (False, "FLOAT16"), (True, "DOUBLE")])
def test_an_input_of_another_form_is_fed_an_image(last: bool, kind: str, tmp_path: Path) -> None:
    number_type = getattr(TensorProto, kind)
    lead = [node("Transpose", ["in"], ["t"], perm=[0, 3, 1, 2])] if last else []
    nodes, weights = net()
    nodes = [*lead, node("Cast", ["t" if last else "in"], ["x"], to=FLOAT), *nodes]
    shape = (1, *SIZE, 3) if last else (1, 3, *SIZE)
    path = save(tmp_path / "m.onnx", nodes, weights, inputs=[value("in", shape, number_type)])
    model, spec = read(path)
    check_order(model)
    assert spec.input.shape == (1, 3, *SIZE)
    kinds = {"FLOAT": np.float32, "FLOAT16": np.float16, "DOUBLE": np.float64}
    given = (IMAGE.transpose(0, 2, 3, 1) if last else IMAGE).astype(kinds[kind])
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(give(model, IMAGE), session.run(None, {"in": given})[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([value("x", (1, 1, *SIZE))], "the input x is float32 1x1x16x24; it must be float32"),
        ([value("x", (1, 3, *SIZE), TensorProto.UINT8)], "the input x is uint8 1x3x16x24; it must be float32"),
        ([value("x", (3, *SIZE))], "the input x is float32 3x16x24; it must be float32"),
    ],
)
def test_an_input_that_is_no_image_is_refused(inputs: Any, message: str, tmp_path: Path) -> None:
    nodes, weights = net()
    path = save(tmp_path / "m.onnx", [node("Cast", ["x"], ["f"], to=FLOAT), *nodes], weights, inputs=inputs)
    with pytest.raises(ModelError, match=message):
        read(path)


def test_a_size_that_depends_on_the_picture_is_refused(tmp_path: Path) -> None:
    nodes, weights = net(node("NonZero", ["s"], ["y"]))
    path = save(tmp_path / "m.onnx", nodes, weights, outputs=[value("y", None, TensorProto.INT64)])
    with pytest.raises(ModelError, match=r"depends on the picture: 4x\?"):
        read(path, classes="4")


@pytest.mark.parametrize("name", ["M.ONNX", "model"])
def test_bench_opens_what_build_engine_opens(name: str, tmp_path: Path) -> None:
    path = save(tmp_path / name, *net())
    for words in (["bench", path, "--seconds", "0.02", "--warmup", "0"], ["profile", path, "--rounds", "1"]):
        result = CliRunner().invoke(main, [*map(str, words), *SAID])
        assert result.exit_code == 0, result.output


def test_a_file_that_is_read_and_not_tried_keeps_its_graph(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", *net())
    assert [each.name for each in load_model(path).graph] == ["", "", ""]
