"""build-engine --io fp16 as a person types it: what is built where there is no GPU, shown by inspect, kept by refit, and refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from small_network import Small
from tensorrt_plans import half_ends, make_info

from rtformer_deploy import pipeline
from rtformer_deploy.backends.tensorrt import build as tensorrt_build
from rtformer_deploy.formats.engine_file import load_info
from rtformer_deploy.formats.model_file import load_model
from rtformer_deploy.graph.weight_list import refit_of
from rtformer_deploy.pipeline import prepare_model, refit_engine, spec_of
from rtformer_deploy.types import BuildOptions, Engine

Call = Callable[..., Result]
BUILD = ("build-engine", "model.onnx", "--threads", 1)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The types of inputs and outputs of the networks that TensorRT builds plans of; a plan itself opens on a GPU alone."""
    pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx")
    serialize, types = tensorrt_build._serialize, []

    def recorded(library: Any, builder: Any, network: Any, *rest: Any) -> Any:
        ends = (network.get_input(0), network.get_output(0))
        types.append((ends[0].dtype.name, ends[1].dtype.name))
        return serialize(library, builder, network, *rest)

    monkeypatch.setattr(tensorrt_build, "_serialize", recorded)
    return types


@pytest.mark.parametrize("io", ["fp16", "fp32"])
def test_tensorrt_rtx_builds_a_plan_with_such_ends(call: Call, built: list[tuple[str, str]], io: str) -> None:
    result = call(*BUILD, "--backend", "tensorrt-rtx", "--fp16", "--io", io)
    assert result.exit_code == 0, result.output
    assert built == [("HALF", "HALF") if io == "fp16" else ("FLOAT", "FLOAT")]
    name = "float16" if io == "fp16" else "float32"
    info = load_info(Path("engine.plan"))
    assert [each.dtype for each in (*info.inputs, *info.outputs)] == [name, name]
    assert (info.io, info.precision.state, dict(info.precision.layers)) == (io, "requested", {"fp16": 6})
    shown = call("inspect", "engine.plan")
    assert f"{name} 1x3x48x64" in shown.stdout
    assert f"{name} 1x" in shown.stdout.split("1x3x48x64", 1)[1]


def test_an_int8_engine_takes_them_too(call: Call, small: Small, built: list[tuple[str, str]]) -> None:
    result = call(*BUILD, "--backend", "tensorrt-rtx", "--int8", "--images", small.images, "--io", "fp16")
    assert result.exit_code == 0, result.output
    assert built == [("HALF", "HALF")]
    assert load_info(Path("engine.plan")).io == "fp16"


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--fp16", "--backend", "openvino"), 1, "OpenVINO has no --io: these are options of a GPU builder."),
        (("--fp16", "--backend", "onnxruntime"), 1, "ONNX Runtime has no --io"),
        (("--backend", "tensorrt-rtx"), 1, "--io fp16 and --fp32 cannot be combined"),
        (("--backend", "tensorrt"), 1, "--io fp16 and --fp32 cannot be combined"),
        (("--fastest", "--backend", "tensorrt-rtx"), 2, "--fastest and --io fp16 cannot be combined"),
    ],
)
def test_what_cannot_be_combined(call: Call, options: tuple[str, ...], code: int, message: str) -> None:
    result = call(*BUILD, "--io", "fp16", *options)
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert not Path("engine.plan").exists()
    assert "is not one of 'fp32', 'fp16'" in call(*BUILD, "--io", "bf16", *options).stderr


def test_refit_makes_the_graph_with_the_ends_of_the_plan(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its graph is the one that the plan was built from, so weights fit; a GPU would then put them in."""
    model = load_model(small.model)
    spec = spec_of(model, "model.onnx")
    graphs: list[Any] = []

    def put_weights(engine: Engine, graph: Any, *_: Any) -> bytes:
        graphs.append(graph)
        return engine.plan

    monkeypatch.setattr(pipeline, "put_weights", put_weights)
    graph = prepare_model(model, "tensorrt", BuildOptions(precision="fp16", io="fp16"))
    refit = refit_of(graph, (), ())
    plain = make_info(spec=spec, inputs=(spec.input,), outputs=(spec.output,), batch=(1, 1, 1), refit=refit)
    refitted = refit_engine(Engine(b"plan", half_ends(plain)), model, spec, BuildOptions(threads=1))
    assert refitted.info.io == "fp16"
    assert [value.dtype.name for value in (*graphs[0].graph.inputs, *graphs[0].graph.outputs)] == ["FLOAT16", "FLOAT16"]
    with pytest.raises(Exception, match="the operators between them, or their attributes, differ"):
        refit_engine(Engine(b"plan", dataclasses.replace(plain, refit=refit)), model, spec, BuildOptions(threads=1))
