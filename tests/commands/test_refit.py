"""build-engine --strip, refit and build-engine --fp8 as a person types them where there is no GPU: what is built, said and refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from small_network import Small, small_network, write_small
from tensorrt_plans import GPU, make_engine

from rtformer_deploy import pipeline
from rtformer_deploy.files import sha256
from rtformer_deploy.formats.engine_file import load_engine, load_info, save_engine
from rtformer_deploy.formats.model_file import load_model, save_model
from rtformer_deploy.formats.ranges import load_ranges, save_ranges
from rtformer_deploy.pipeline import spec_of
from rtformer_deploy.types import Engine, ModelSpec, PrecisionFound

Call = Callable[..., Result]
STRIP = ("build-engine", "model.onnx", "--backend", "tensorrt-rtx", "--strip", "--threads", 1, "--output", "stripped.plan")
REFIT = ("refit", "stripped.plan", "other.onnx", "-o", "new.plan", "--threads", 1)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Small:
    """The small network as model.onnx, and with other weights as other.onnx."""
    monkeypatch.chdir(tmp_path)
    small = write_small(tmp_path)
    save_model(small_network(small.dataset, seed=1), Path("other.onnx"))
    return small


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> None:
    """A builder on a machine with a GPU, as far as `build-engine` sees: no builder leaves weights out without one."""

    def build(_model: object, spec: ModelSpec, backend: str, options: Any, *_: object, **told: Any) -> Engine:
        tensors = {"spec": spec, "inputs": (spec.input,), "outputs": (spec.output,), "batch": options.batch}
        found = PrecisionFound(options.precision, "requested", {options.precision: 6})
        version, gpu = "tensorrt-rtx 1.7.1.116", "compute capability 8.0, 8.6"
        made = make_engine(backend=backend, precision=found, builder_version=version, gpu=gpu, **tensors, model_sha256=told["model_sha256"])
        return dataclasses.replace(made, info=dataclasses.replace(made.info, plan_sha256=sha256(made.plan)))

    monkeypatch.setattr(pipeline, "build", build)
    monkeypatch.setattr("rtformer_deploy.backends.gpus", lambda: (GPU,))


def refused(result: Result, *messages: str, code: int = 1) -> None:
    """One message on stderr with these lines, the exit code, and no plan."""
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit)
    for message in messages:
        assert message in result.stderr
    assert not Path("new.plan").exists()
    assert not Path("new.plan.json").exists()


@pytest.mark.usefixtures("builder")
def test_a_plan_without_weights_says_so_everywhere(call: Call) -> None:
    result = call(*STRIP, "--fp16")
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith("It holds no weights. To put some in: rtformer-deploy refit stripped.plan MODEL.onnx -o NEW.plan\n")
    assert json.loads(Path("stripped.plan.json").read_text())["version"] == 3
    info = load_info(Path("stripped.plan"))
    assert info.stripped
    assert info.refit is not None
    assert info.refit.weights["tail.conv.weight/fp16"].shape == (32, 48, 3, 3)
    message = (
        "The plan holds no weights: it was built with --strip.\nPut a model's weights in: rtformer-deploy refit PLAN MODEL.onnx -o NEW.plan"
    )
    for command in (["bench", "stripped.plan"], ["segment", "stripped.plan", "data/images/train", "--output", "out"]):
        opened = call(*command)
        assert opened.exit_code == 1
        assert opened.stderr == f"Error: {message}\n"
    shown = call("inspect", "stripped.plan", "--json")
    facts = json.loads(shown.stdout)["engine"]
    assert facts["weights"] == "none: refit puts 6 in"
    assert facts["opens_here"] == f"no: {message}"


@pytest.mark.usefixtures("builder")
def test_refit_says_that_the_model_fits_and_that_it_needs_a_gpu(call: Call) -> None:
    assert call(*STRIP, "--fp16").exit_code == 0
    refused(call(*REFIT), "The model fits the plan. To put its weights in, TensorRT needs an NVIDIA GPU, and there is none here: ")


@pytest.mark.usefixtures("builder")
def test_another_model_is_refused_with_what_differs(call: Call, small: Small) -> None:
    assert call(*STRIP).exit_code == 0
    model = load_model(Path("model.onnx"))
    next(node for node in model.graph if node.name == "tail.conv").name = "other"
    save_model(model, Path("other.onnx"))
    told = "the weights have the same names and shapes, but the operators between them, or their attributes, differ"
    refused(call(*REFIT), f"The model does not fit the engine:\n  {told}\n", "build-engine --strip")
    save_model(small_network(small.dataset, "batch"), Path("other.onnx"))
    refused(call(*REFIT), "The model's input is float32 batchx3x48x64; the engine was built for input, float32 1x3x48x64.")
    save_engine(make_engine(backend="openvino", gpu=None), Path("cpu.plan"))
    document = json.loads(Path("cpu.plan.json").read_text()) | {"plan_sha256": sha256(b"plan")}
    Path("cpu.plan.json").write_text(json.dumps(document))
    refused(call("refit", "cpu.plan", "other.onnx", "-o", "new.plan"), "cannot be exchanged, as it was not built with --strip.")


@pytest.mark.usefixtures("builder")
def test_eight_bits_need_ranges_of_the_new_weights(call: Call, small: Small) -> None:
    for name in ("model", "other"):
        assert call("calibrate", f"{name}.onnx", "--images", small.images, "--output", f"{name}.json", "--threads", 1).exit_code == 0
    assert call(*STRIP, "--int8", "--ranges", "model.json", "--keep", "body.1.*").exit_code == 0
    refit = load_info(Path("stripped.plan")).refit
    assert refit is not None
    assert refit.keep == ("body.1.*",)
    assert {weight.dtype for weight in refit.weights.values()} == {"int8", "float16"}
    refused(call(*REFIT), "INT8 needs ranges")
    refused(call(*REFIT, "--ranges", "model.json"), "These ranges belong to other weights")
    refused(call(*REFIT, "--ranges", "other.json"), "The model fits the plan.")
    ranges = load_ranges(Path("other.json"))
    save_ranges(dataclasses.replace(ranges, amax={**ranges.amax, "stem.0/Relu": 0.0}), Path("other.json"))
    refused(call(*REFIT, "--ranges", "other.json"), "  stem.0/Relu/activation_scale/fp16 (float16 number) is missing in the model")


@pytest.mark.usefixtures("builder")
@pytest.mark.parametrize(
    ("more", "message", "code"),
    [
        (["--ranges", "no.json"], "--ranges and --images belong to engines in INT8 or FP8; stripped.plan is in FP16.", 2),
        (["--max-flips", "1%"], "an engine of tensorrt-rtx cannot run on this machine", 3),
        (["-o", "stripped.plan"], "Cannot write stripped.plan: it is itself an input.", 1),
        (["-o", "other.onnx"], "Cannot write other.onnx: it is itself an input.", 1),
    ],
)
def test_calls_of_refit_that_cannot_be(call: Call, more: list[str], message: str, code: int) -> None:
    assert call(*STRIP, "--fp16").exit_code == 0
    refused(call(*REFIT, *more), message, code=code)
    assert load_engine(Path("stripped.plan")).info.stripped


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("more", "message", "code"),
    [
        (["--strip", "--backend", "openvino"], "OpenVINO has no --strip: these are options of a GPU builder.", 1),
        (["--strip", "--backend", "onnxruntime"], "ONNX Runtime has no --strip", 1),
        (["--strip", "--backend", "tensorrt-rtx"], "leaves weights out only on a machine with an NVIDIA GPU", 1),
        (["--fp8", "--backend", "openvino"], "OpenVINO has no FP8: that needs an NVIDIA GPU of compute capability 8.9 or later.", 1),
        (["--fp8", "--backend", "tensorrt-rtx"], "FP8 needs ranges, and none come with small", 1),
    ],
)
def test_builds_that_cannot_be(call: Call, more: list[str], message: str, code: int) -> None:
    refused(call("build-engine", "model.onnx", *more, "--output", "new.plan"), message, code=code)


@pytest.mark.usefixtures("builder")
def test_a_plan_without_weights_has_no_bound_on_its_pixels(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtformer_deploy.commands.build_engine.check_can_compare", lambda *_: None)
    refused(call(*STRIP, "--max-flips", "1%"), "--strip and --max-flips cannot be combined", code=2)


def test_an_fp8_plan_is_for_gpus_that_have_it_and_its_graph_was_tried(call: Call, small: Small) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx")
    result = call(
        "build-engine", "model.onnx", "--fp8", "--images", small.images, "--backend", "tensorrt-rtx", "--threads", 1, "--output", "new.plan"
    )
    assert result.exit_code == 0, result.output
    info = load_info(Path("new.plan"))
    assert info.gpu == "compute capability 8.9, 12.0"
    assert info.precision.asked == "fp8"
    assert info.precision.state == "requested"
    assert dict(info.precision.layers) == {"fp8": 4, "fp16": 2}  # the first convolution has three channels, the last is the classifier
    assert info.ranges_sha256 is not None
    (note,) = (note for note in info.notes if "change class from the model to its graph in FP8" in note)
    assert note in result.stdout
    assert "0.0000%" not in note
    assert spec_of(load_model(Path("model.onnx")), "model.onnx") == info.spec
