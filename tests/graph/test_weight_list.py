"""What may differ between the graph of a build and that of a refit, and how the rest is said."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from helpers import tiny_model

from rtformer_deploy.errors import BuildError, ModelError
from rtformer_deploy.formats.model_file import parse_model, serialize_model
from rtformer_deploy.graph import weight_list
from rtformer_deploy.graph.edit import clone, initializer
from rtformer_deploy.graph.weight_list import check_fit, graph_sha256, refit_of, weights_of
from rtformer_deploy.pipeline import prepare_model
from rtformer_deploy.types import BuildOptions


def exchange(model: ir.Model, name: str, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> None:
    value = model.graph.initializers[name]
    value.const_value = ir.tensor(array, name=name)


def test_other_values_fit_and_are_named() -> None:
    built = refit_of(tiny_model(seed=0), ["a*"], ["b"])
    assert (built.stripped, built.keep, built.fp32) == (True, ("a*",), ("b",))
    assert check_fit(built, tiny_model(seed=0)) == (dataclasses.replace(built, stripped=False), frozenset())
    other = refit_of(tiny_model(seed=1), ["a*"], ["b"])
    assert check_fit(built, tiny_model(seed=1)) == (
        dataclasses.replace(other, stripped=False),
        frozenset({"weight0", "weight1", "weight2"}),
    )
    one = tiny_model(seed=0)
    exchange(one, "weight1", np.zeros((8, 8, 3, 3), np.float32))
    assert check_fit(built, one)[1] == {"weight1"}


def test_it_is_the_same_in_fp16_and_after_a_file() -> None:
    options = BuildOptions(precision="fp16")
    model = prepare_model(tiny_model(seed=0), "tensorrt", options)
    assert {weight.dtype for weight in weights_of(model).values()} == {"float16"}
    again = parse_model(serialize_model(model))
    assert (weights_of(again), graph_sha256(again)) == (weights_of(model), graph_sha256(model))
    assert len(check_fit(refit_of(model, (), ()), prepare_model(tiny_model(seed=1), "tensorrt", options))[1]) == 3


def test_where_a_model_comes_from_does_not_count() -> None:
    model = tiny_model()
    other = clone(model)
    other.producer_name, other.doc_string = "another tool", "words"
    other.metadata_props["weights"] = "other"
    other.graph.doc_string = "more words"
    for node in other.graph:
        node.doc_string, node.metadata_props["traceback"] = "words", "a file of somebody"
        node.outputs[0].metadata_props["traceback"] = "the same"
    assert graph_sha256(other) == graph_sha256(model)


def _larger(model: ir.Model) -> None:
    exchange(model, "weight0", np.zeros((8, 3, 5, 5), np.float32))


def _half(model: ir.Model) -> None:
    exchange(model, "weight0", np.zeros((8, 3, 3, 3), np.float16))


def _renamed(model: ir.Model) -> None:
    value = initializer(model.graph, "other", np.zeros((8, 3, 3, 3), np.float32))
    ir.convenience.replace_all_uses_with(model.graph.initializers["weight0"], value)
    del model.graph.initializers["weight0"]


def _another_stride(model: ir.Model) -> None:
    next(iter(model.graph)).attributes["strides"] = ir.AttrInt64s("strides", [1, 1])


def _other_whole_numbers(model: ir.Model) -> None:
    initializer(model.graph, "shape", np.array([1, 2], np.int64))


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        (_larger, ["  weight0 is float32 8x3x5x5 in the model, float32 8x3x3x3 in the engine"]),
        (_half, ["  weight0 is float16 8x3x3x3 in the model, float32 8x3x3x3 in the engine"]),
        (_renamed, ["  weight0 (float32 8x3x3x3) is missing in the model", "  other (float32 8x3x3x3) is not in the engine"]),
        (_another_stride, ["  the weights have the same names and shapes, but the operators between them, or their attributes, differ"]),
        (
            _other_whole_numbers,
            ["  the weights have the same names and shapes, but the operators between them, or their attributes, differ"],
        ),
    ],
)
def test_what_does_not_fit_is_listed(change: Callable[[ir.Model], None], lines: list[str]) -> None:
    other = tiny_model()
    change(other)
    with pytest.raises(ModelError, match="The model does not fit the engine:") as caught:
        check_fit(refit_of(tiny_model(), (), ()), other)
    assert list(caught.value.details) == lines


def test_long_lists_are_cut() -> None:
    built = refit_of(tiny_model(), (), ())
    some = next(iter(built.weights.values()))
    built = dataclasses.replace(built, weights={f"w{index}": some for index in range(30)})
    with pytest.raises(ModelError) as caught:
        check_fit(built, tiny_model())
    assert len(caught.value.details) == 21
    assert caught.value.details[-1] == "  ... and 13 more"


def test_more_weights_than_a_sidecar_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_list, "_MOST_WEIGHTS", 2)
    with pytest.raises(BuildError, match="the model has 3 weights, and a sidecar lists at most 2"):
        refit_of(tiny_model(), (), ())
