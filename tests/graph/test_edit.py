"""The copy that passes change, the model that they leave alone, and constants that cannot be mistaken for one another."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from exports import exported
from onnx import TensorProto, helper, numpy_helper

from rtformer_deploy.backends import BACKENDS
from rtformer_deploy.errors import ModelError
from rtformer_deploy.formats.model_file import parse_model, serialize_model
from rtformer_deploy.graph.batchnorm import plain_batch_norms
from rtformer_deploy.graph.edit import clone, constant, initializer
from rtformer_deploy.graph.fp16 import to_fp16
from rtformer_deploy.graph.functions import add_functions, inline_functions
from rtformer_deploy.graph.gather import flatten_gathers
from rtformer_deploy.graph.head import set_head
from rtformer_deploy.graph.names import name_tensors, strip_traces
from rtformer_deploy.graph.qdq import to_qdq
from rtformer_deploy.graph.quick_plugins import use_quick_plugins
from rtformer_deploy.graph.simplify import simplify
from rtformer_deploy.pipeline import prepare_model
from rtformer_deploy.types import Backend, BuildOptions, PrecisionName, Ranges

Pass = Callable[[ir.Model], ir.Model]


def ranges(model: ir.Model) -> Ranges:
    """One for every tensor."""
    names = [str(value.name) for node in model.graph for value in node.outputs]
    return Ranges(dict.fromkeys([*names, "input"], 1.0), "minmax", 1, "", "")


def elsewhere() -> ir.Model:
    """Three convolutions, a residual Add and a constant, of which no node has a name, as other tools leave them."""
    weights = [np.random.default_rng(index).normal(size=(16, 3 if index == 0 else 16, 3, 3)).astype(np.float32) for index in range(4)]
    stored = [numpy_helper.from_array(array, f"w{index}") for index, array in enumerate(weights)]
    nodes = [helper.make_node("Conv", ["input", "w0"], ["c0"], pads=[1] * 4)]
    nodes += [helper.make_node("Conv", [f"c{index}", f"w{index + 1}"], [f"c{index + 1}"], pads=[1] * 4) for index in (0, 1)]
    nodes.append(helper.make_node("Add", ["c1", "c2"], ["sum"]))
    nodes.append(helper.make_node("Constant", [], ["half"], value=numpy_helper.from_array(np.full(1, 0.5, np.float32), "value")))
    nodes.append(helper.make_node("Mul", ["sum", "half"], ["scaled"]))
    nodes.append(helper.make_node("Conv", ["scaled", "w3"], ["logits"], pads=[1] * 4))
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, (1, 3, 16, 16))]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, (1, 16, 16, 16))]
    graph = helper.make_graph(nodes, "elsewhere", inputs, outputs, stored)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return parse_model(onnx.shape_inference.infer_shapes(proto).SerializeToString())


def test_a_clone_is_the_model_and_shares_only_its_tensors() -> None:
    model = exported().model
    copy = clone(model)
    assert serialize_model(copy) == serialize_model(model)
    assert copy.functions.keys() == model.functions.keys() != set()
    assert copy.metadata_props == model.metadata_props != {}
    assert copy.opset_imports == model.opset_imports != {}
    assert copy.graph.initializers.keys() == model.graph.initializers.keys()
    for name, value in model.graph.initializers.items():
        assert copy.graph.initializers[name] is not value
        assert copy.graph.initializers[name].const_value is value.const_value


def test_what_is_done_to_a_clone_does_not_reach_the_model() -> None:
    model = exported().model
    before = serialize_model(model)
    copy = clone(model)
    for graph in (copy.graph, *copy.functions.values()):
        for node in graph:
            node.metadata_props["mark"] = "1"
            for output in node.outputs:
                output.dtype, output.name = ir.DataType.FLOAT16, f"{output.name}/renamed"
    for value in (*copy.graph.inputs, *copy.graph.initializers.values()):
        value.dtype, value.shape = ir.DataType.FLOAT16, ir.Shape([1])
    copy.functions.clear()
    copy.metadata_props.clear()
    copy.opset_imports.clear()
    assert serialize_model(model) == before


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("source", ["network", "labels", "elsewhere"])
def test_preparing_leaves_the_callers_model_as_it_was(source: str, backend: Backend, precision: PrecisionName) -> None:
    model = elsewhere() if source == "elsewhere" else exported(head="labels" if source == "labels" else "lowres").model
    before = serialize_model(model)
    options = BuildOptions(precision=precision, plugins=backend == "tensorrt" and source == "labels")
    prepared = prepare_model(model, backend, options, ranges(model))
    assert serialize_model(prepared) != b""  # serialising names tensors, which must not reach the model either
    assert serialize_model(model) == before


PASSES: dict[str, Pass] = {
    "add_functions": add_functions,
    "flatten_gathers": lambda model: flatten_gathers(inline_functions(model)),
    "inline_functions": inline_functions,
    "name_tensors": name_tensors,
    "plain_batch_norms": plain_batch_norms,
    "set_head": lambda model: set_head(model, exported(head="labels").spec),
    "simplify": simplify,
    "strip_traces": lambda model: strip_traces(model, "a name"),
    "to_fp16": to_fp16,
    "to_qdq": lambda model: to_qdq(model, ranges(model), "tensorrt"),
    "use_quick_plugins": use_quick_plugins,
}


@pytest.mark.parametrize("name", PASSES)
def test_every_pass_changes_the_model_it_is_given_and_returns_it(name: str) -> None:
    model = clone(exported().model)
    assert PASSES[name](model) is model


@pytest.mark.parametrize("function", [add_functions, flatten_gathers, inline_functions, name_tensors, plain_batch_norms, set_head,
                                      simplify, strip_traces, to_fp16, to_qdq, use_quick_plugins])  # fmt: skip
def test_every_pass_says_so_in_its_first_line(function: Callable[..., object]) -> None:
    assert "changes the model" in (function.__doc__ or "").split("\n")[0]


def test_a_name_that_is_taken_is_an_error_not_another_nodes_constant() -> None:
    graph = elsewhere().graph
    initializer(graph, "zero", np.zeros(1, np.float32))
    with pytest.raises(ModelError, match="already has a constant named zero"):
        initializer(graph, "zero", np.ones(1, np.float32))


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_nodes_without_names_keep_their_own_constants(backend: Backend, precision: PrecisionName) -> None:
    model = elsewhere()
    prepared = prepare_model(model, backend, BuildOptions(precision=precision), ranges(model))
    onnx.checker.check_model(ir.serde.serialize_model(prepared))
    for index in (1, 2):
        weight = model.graph.initializers[f"w{index}"].const_value
        assert weight is not None
        if precision == "int8":
            stored = constant(prepared.graph.initializers[f"c{index}/weight/int8"])
            assert stored is not None
            scales = np.abs(weight.numpy()).reshape(16, -1).max(1) / 127
            assert np.abs(stored - weight.numpy() / scales[:, None, None, None]).max() < 1


def test_an_fp32_node_reads_two_tensors_that_were_fp16() -> None:
    prepared = prepare_model(exported().model, "tensorrt", BuildOptions(precision="fp16"), fp32=["layer1.0/Add"])
    onnx.checker.check_model(ir.serde.serialize_model(prepared), full_check=True)
    add = next(node for node in prepared.graph if node.name == "layer1.0/Add")
    assert [value.dtype for value in add.inputs if value is not None] == [ir.DataType.FLOAT] * 2
