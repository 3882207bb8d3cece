"""The check of a fresh engine: against ONNX Runtime without its optimisations, on the worst of several frames."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx_ir as ir
import pytest
from attention_model import attention_model, attention_spec
from click.testing import CliRunner, Result
from helpers import frames, tiny_model, tiny_spec
from onnx import TensorProto, helper, numpy_helper
from onnx_parts import constant

from rtformer_deploy import agreement
from rtformer_deploy.agreement import NOISE, SAMPLE, Agreement, Probe, Probes, check_flips, compare
from rtformer_deploy.backends import build, open_engine, open_reference
from rtformer_deploy.cli import main
from rtformer_deploy.errors import GateError, ImageError
from rtformer_deploy.formats.engine_file import load_info
from rtformer_deploy.formats.model_file import load_model, parse_model, save_model, stamp_spec
from rtformer_deploy.image.odd_files import OddFiles
from rtformer_deploy.image.samples import noise
from rtformer_deploy.pipeline import build_engine
from rtformer_deploy.types import BuildOptions, Frame, ModelSpec, TensorSpec

Call = Callable[..., Result]
PLAIN = BuildOptions(threads=1)


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.chdir(tmp_path)
    save_model(tiny_model(), Path("model.onnx"))
    Path("images").mkdir()
    for index, frame in enumerate(frames((40, 60), (64, 96))):
        cv2.imwrite(f"images/{index}.png", frame)
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


def _build(call: Call, *arguments: object, code: int = 0) -> Result:
    result = call("build-engine", "--backend", "openvino", "--threads", 1, *arguments)
    assert result.exit_code == code, result.output
    return result


def _another() -> ir.Model:
    """A model of the same name and form that tells the classes apart otherwise."""
    return tiny_model(seed=1)


def test_the_figure_is_the_worst_of_sample_noise_and_the_users_images_and_the_sidecar_keeps_each(call: Call) -> None:
    result = _build(call, "--check-images", "images", "--fp16")
    info = load_info(Path("engine.plan"))
    assert list(info.flips_on) == [SAMPLE, NOISE, "images/0.png", "images/1.png"]
    assert info.flips == max(info.flips_on.values())
    assert f"{info.flips:.4%} of the pixels change class (sample " in result.output
    assert "images/1.png " in result.output
    told = json.loads(call("inspect", "engine.plan", "--json").stdout)
    assert set(told["precision"]["flips_on"]) == set(info.flips_on)


def test_an_engine_of_another_model_is_seen_and_said() -> None:
    engine = build(_another(), tiny_spec(), "openvino", PLAIN)
    found = compare(engine, tiny_model(), PLAIN, Probes((Probe("mine", lambda: frames((64, 96))[0]),)))
    assert found.worst is not None
    assert found.worst > agreement.NOTABLE
    assert set(found.shares) == {SAMPLE, NOISE, "mine"}
    (note,) = found.notes
    worst = max(found.shares, key=lambda name: found.shares[name])
    assert note.startswith(f"Warning: {found.worst:.2%} of the pixels change class on {worst}.")
    assert "rtformer-deploy verify" in note


def test_the_reference_is_not_optimised() -> None:
    """ONNX Runtime's optimiser reads weights that are dequantised along axis 1 as if it were axis 0."""
    model, spec = _dequantised_along_axis_1()
    frame = noise(spec.size, spec.mean, spec.std)
    with open_reference(model, spec, PLAIN) as reference, open_engine(build(model, spec, "openvino", PLAIN), threads=1) as openvino:
        exact, other = reference.logits([frame]), openvino.logits([frame])
    assert np.abs(other - exact).max() < 0.02 * np.abs(exact).max()
    engine = build(model, spec, "onnxruntime", PLAIN)
    with open_engine(engine, threads=1) as optimised:
        assert np.abs(optimised.logits([frame]) - exact).max() > 0.5 * np.abs(exact).max()
    found = compare(engine, model, PLAIN, Probes())
    assert min(found.shares.values()) > agreement.NOTABLE
    assert found.notes[0].startswith("Warning: ")


def test_above_the_bound_nothing_is_written_and_the_exit_code_is_3(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtformer_deploy.pipeline.compare", lambda *_: Agreement({SAMPLE: 0.001, NOISE: 0.02}))
    result = _build(call, "--max-flips", "1%", code=3)
    assert "2.0000% of the pixels change class, more than --max-flips 1.0000%" in result.stderr
    assert not Path("engine.plan").exists()
    assert not Path("engine.plan.json").exists()
    _build(call, "--max-flips", "0.02")
    assert load_info(Path("engine.plan")).flips == 0.02


def test_what_onnx_runtime_cannot_run_is_built_and_nothing_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    engine = build(model, tiny_spec(), "openvino", PLAIN)
    broken = tiny_model()
    next(iter(broken.graph)).op_type = "ConvInteger"  # which takes no floats
    found = compare(engine, broken, PLAIN, Probes())
    assert found.worst is None
    assert found.notes[0].startswith("Nothing was compared: ONNX Runtime cannot run the model: ")
    monkeypatch.setattr("rtformer_deploy.pipeline.compare", lambda *_: found)
    built = build_engine(model, tiny_spec(), "openvino", PLAIN)
    assert (built.info.flips, built.info.flips_on) == (None, {})
    assert built.info.notes[-1] == found.notes[0]
    with pytest.raises(GateError, match="not compared"):
        build_engine(model, tiny_spec(), "openvino", PLAIN, probes=Probes(max_flips=0.5))


def test_a_model_that_gives_nan_itself_is_not_compared_and_it_is_said() -> None:
    model, spec = tiny_model(), tiny_spec()
    (last,) = model.graph.outputs
    name, last.name = str(last.name), "positive"
    root = ir.node("Sqrt", [last], name="root")
    negative = ir.node("Neg", [root.outputs[0]], name="negative")
    twice = ir.node("Sqrt", [negative.outputs[0]], name="twice")
    twice.outputs[0].name, twice.outputs[0].type, twice.outputs[0].shape = name, last.type, last.shape
    model.graph.extend([root, negative, twice])
    model.graph.outputs[0] = twice.outputs[0]
    found = compare(build(model, spec, "onnxruntime", BuildOptions(threads=1)), model, BuildOptions(threads=1), Probes())
    assert found == Agreement(
        {},
        (
            "Nothing was compared: the model itself gives NaN or infinity on sample, in ONNX Runtime too; "
            "rtformer-deploy calibrate names the first tensor.",
        ),
    )


def test_a_bound_needs_an_engine_that_runs_here(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtformer_deploy.nvidia.driver.gpus", lambda: [])
    result = call("build-engine", "--backend", "tensorrt-rtx", "--max-flips", "1%")
    assert (result.exit_code, Path("engine.plan").exists()) == (3, False)
    assert "cannot run on this machine" in result.stderr


def test_images_that_cannot_be_read_are_named_when_the_engine_is_written(call: Call) -> None:
    Path("images/bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    result = _build(call, "--check-images", "images", code=1)
    assert "bad.png" in result.stderr
    assert "engine.plan was built, and compared on the others" in result.stderr
    assert set(load_info(Path("engine.plan")).flips_on) == {SAMPLE, NOISE, "images/0.png", "images/1.png"}
    result = call("build-engine", "--backend", "openvino", "--check-images", "images/bad.png", "-o", "other.plan")
    assert (result.exit_code, Path("other.plan").exists()) == (1, False)
    result = call("build-engine", "--backend", "openvino", "--check-images", "nowhere", "-o", "other.plan")
    assert (result.exit_code, Path("other.plan").exists()) == (1, False)


def test_a_model_that_gives_one_class_everywhere_proves_little() -> None:
    model = tiny_model()
    weight = model.graph.initializers["weight2"]
    weight.const_value = ir.tensor(np.zeros_like(constant(weight)), name="weight2")
    found = compare(build(model, tiny_spec(), "openvino", PLAIN), model, PLAIN, Probes())
    assert found.worst == 0
    assert "one class alone" in found.notes[0]


def test_noise_has_the_mean_and_spread_that_the_model_expects() -> None:
    spec = attention_spec()
    frame = noise((200, 300), spec.mean, spec.std)
    assert frame.shape == (200, 300, 3)
    assert frame.dtype == np.uint8
    assert np.array_equal(frame, noise((200, 300), spec.mean, spec.std))
    assert np.abs(frame.mean((0, 1)) / 255 - spec.mean).max() < 0.01
    assert np.abs(frame.std((0, 1)) / 255 - spec.std).max() < 0.02


def test_noise_for_a_model_that_takes_bytes_is_not_black() -> None:
    frame = noise((64, 96), (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))
    assert abs(frame.mean() / 255 - 0.5) < 0.02
    assert frame.std() / 255 > 0.2


def test_of_very_many_frames_the_sidecar_keeps_those_that_change_most() -> None:
    found = Agreement({f"{index:03}": index / 1000 for index in range(500)})
    assert list(found.listed()) == [f"{index:03}" for index in range(300, 500)]


def test_a_share_that_is_no_number_does_not_pass_a_bound() -> None:
    check_flips(None, None)
    check_flips(0.01, 0.01)
    with pytest.raises(GateError):
        check_flips(float("nan"), 0.5)


def test_no_readable_image_is_an_error() -> None:
    def broken() -> Frame:
        raise ImageError("no picture")

    engine = build(tiny_model(), tiny_spec(), "onnxruntime", PLAIN)
    with pytest.raises(ImageError, match="1 of 1 images could not be read"):
        compare(engine, tiny_model(), PLAIN, Probes((Probe("a", broken),), odd=OddFiles(stop=False)))


def test_an_image_that_cannot_be_read_counts_once_however_often_it_is_tried() -> None:
    def broken() -> Frame:
        raise ImageError("no picture")

    engine = build(tiny_model(), tiny_spec(), "onnxruntime", PLAIN)
    frame = np.zeros((8, 8, 3), np.uint8)
    probes = Probes((Probe("a", broken), Probe("b", lambda: frame)), odd=OddFiles(stop=False))
    for _ in range(2):
        assert "b" in compare(engine, tiny_model(), PLAIN, probes).shares
        assert len(probes.odd.errors) == 1


def test_a_model_with_functions_is_compared_too() -> None:
    assert build_engine(attention_model(), attention_spec(), "openvino", PLAIN).info.flips == 0


def test_the_name_of_a_check_image_is_no_output(call: Call) -> None:
    result = call("build-engine", "--backend", "openvino", "--check-images", "images/0.png", "-o", "images/0.png")
    assert result.exit_code == 1
    assert "itself an input" in result.stderr
    assert load_model(Path("model.onnx"))


def _dequantised_along_axis_1() -> tuple[ir.Model, ModelSpec]:
    """Convolution weights dequantised along their input channels, as some quantisers write them."""
    random = np.random.default_rng(0)
    arrays = {
        "w1": (random.standard_normal((16, 3, 3, 3)) / 5).astype(np.float32),
        "w2": random.integers(-127, 128, (16, 16, 3, 3)).astype(np.int8),
        "w3": (random.standard_normal((6, 16, 1, 1)) / 4).astype(np.float32),
        "scales": np.logspace(-4, -1.5, 16).astype(np.float32),
        "zeros": np.zeros(16, np.int8),
        "scale": np.float32(0.02),
        "zero": np.uint8(0),
        "scale2": np.float32(0.05),
        "zero2": np.uint8(128),
    }
    nodes = [
        helper.make_node("Conv", ["input", "w1"], ["a"], "n1", pads=[1] * 4, strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["b"], "n2"),
        helper.make_node("QuantizeLinear", ["b", "scale", "zero"], ["bq"], "q1"),
        helper.make_node("DequantizeLinear", ["bq", "scale", "zero"], ["bd"], "d1"),
        helper.make_node("DequantizeLinear", ["w2", "scales", "zeros"], ["wd"], "dw", axis=1),
        helper.make_node("Conv", ["bd", "wd"], ["c"], "n3", pads=[1] * 4),
        helper.make_node("QuantizeLinear", ["c", "scale2", "zero2"], ["cq"], "q2"),
        helper.make_node("DequantizeLinear", ["cq", "scale2", "zero2"], ["cd"], "d2"),
        helper.make_node("Conv", ["cd", "w3"], ["logits"], "n5"),
    ]
    names = tuple(f"class{index}" for index in range(6))
    spec = ModelSpec(
        name="axis1",
        arch={"name": "unknown"},
        classes=names,
        palette=tuple((index, 0, 0) for index in range(6)),
        input=TensorSpec("input", (1, 3, 64, 96), "float32"),
        output=TensorSpec("logits", (1, 6, 32, 48), "float32"),
    )
    ends = [helper.make_tensor_value_info(each.name, TensorProto.FLOAT, each.shape) for each in (spec.input, spec.output)]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(np.asarray(a), n) for n, a in arrays.items()])
    model = parse_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString())
    stamp_spec(model, spec)
    return model, spec
