"""calibrate, build-engine --int8 and inspect --lint as a person types them: from images to an engine, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import Result
from onnx import numpy_helper
from onnx_parts import constant, producer
from small_network import Small, small_network, write_small

from rtformer_deploy.backends import build
from rtformer_deploy.commands import calibrate as calibration
from rtformer_deploy.formats import ranges as ranges_module
from rtformer_deploy.formats.engine_file import load_engine
from rtformer_deploy.formats.model_file import load_model, read_spec, save_model, stamp_spec
from rtformer_deploy.formats.ranges import load_ranges
from rtformer_deploy.graph.lint import lint
from rtformer_deploy.graph.qdq import to_qdq
from rtformer_deploy.image import frames as image_module
from rtformer_deploy.image.frames import save_png
from rtformer_deploy.image.reader import ImageReader
from rtformer_deploy.pipeline import prepare_model, spec_of
from rtformer_deploy.types import IMAGENET_MEAN, BuildOptions

Call = Callable[..., Result]


@pytest.fixture
def ranges(small: Small, call: Call) -> Path:
    result = call("calibrate", "model.onnx", "--images", small.images, "--method", "minmax", "--threads", 1)
    assert result.exit_code == 0, result.output
    return Path("ranges.json")


def refused(result: Result, message: str, code: int = 1) -> None:
    """One message on stderr, the exit code, and nothing of what was to be written."""
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit)
    assert message in result.stderr
    assert not Path("engine.plan").exists()
    assert not Path("engine.plan.json").exists()


def convolutions_in_int8(plan: str = "engine.plan") -> int:
    return load_engine(Path(plan)).info.precision.layers.get("int8", 0)


#: Convolutions of the network that compute in INT8, with either placement.
IN_INT8 = 4


def edit_ranges(path: Path, **values: Any) -> None:
    data = json.loads(path.read_text())
    data["amax"] |= values.pop("amax", {})
    path.write_text(json.dumps(data | values))


def test_calibrate_writes_the_ranges_of_every_tensor(small: Small, ranges: Path, call: Call) -> None:
    found = load_ranges(ranges)
    assert (found.images, found.method, found.model) == (4, "minmax", "small")
    assert {"input", "stem.0", "body.1.left/Relu", "join/Concat"} <= set(found.amax)
    assert found.amax["join/Concat"] == max(found.amax["body.1.left/Relu"], found.amax["body.1.right/Relu"])
    result = call("calibrate", "model.onnx", "--images", small.images, "--limit", 2, "--output", "two.json", "--threads", 1)
    assert "two.json: ranges of" in result.stdout
    assert "by mse, from 2 images" in result.stdout
    assert sorted(path.name for path in Path().glob(".*")) == []


def test_a_calibration_that_was_interrupted_goes_on(small: Small, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_EVERY", 1)
    real, shown = ImageReader.load_with_hash, list[Path]()

    def interrupted(self: ImageReader, path: Path) -> Any:
        shown.append(path)
        if len(shown) == 3:
            raise KeyboardInterrupt
        return real(self, path)

    monkeypatch.setattr(ImageReader, "load_with_hash", interrupted)
    command = ("calibrate", "model.onnx", "--images", small.images, "--threads", 1)
    first = call(*command)
    assert first.exit_code == 130
    assert first.stderr == "Interrupted.\n"
    assert not Path("ranges.json").exists()
    second = call(*command)
    assert second.exit_code == 0, second.output
    assert "Going on after 2 images." in second.stdout
    assert len(shown) == 3 + 2
    assert call(*command, "--output", "whole.json").exit_code == 0
    assert Path("whole.json").read_bytes() == Path("ranges.json").read_bytes()


@pytest.mark.parametrize(
    ("name", "data", "message"), [("x.png", b"no image", "x.png"), ("x.txt", b"text", "no images"), (None, b"", "no images")]
)
def test_folders_without_images_and_broken_ones_are_refused(call: Call, name: str | None, data: bytes, message: str) -> None:
    Path("odd").mkdir()
    if name is not None:
        Path("odd", name).write_bytes(data)
    refused(call("calibrate", "model.onnx", "--images", "odd"), message)
    assert not Path("ranges.json").exists()
    refused(call("build-engine", "model.onnx", "--int8", "--images", "odd", "--backend", "onnxruntime"), message)


def test_images_of_one_colour_are_refused(call: Call) -> None:
    Path("grey").mkdir()
    save_png(Path("grey/a.png"), np.full((48, 64, 3), 90, np.uint8), mark=False)
    refused(call("calibrate", "model.onnx", "--images", "grey", "--threads", 1), "one colour")
    assert not Path("ranges.json").exists()


def test_a_tensor_that_is_always_zero_is_said_and_its_reader_stays_in_fp32(small: Small, call: Call) -> None:
    proto = onnx.load("model.onnx")
    weight = next(item for item in proto.graph.initializer if item.name == "body.1.left.weight")
    weight.CopyFrom(numpy_helper.from_array(-np.abs(numpy_helper.to_array(weight)), weight.name))  # nothing survives its ReLU
    node = next(item for item in proto.graph.node if item.name == "tail.conv")
    concat = next(item for item in proto.graph.node if item.op_type == "Concat")
    concat.input[1] = "body.1.left/Relu"
    proto.graph.node.remove(next(item for item in proto.graph.node if item.name == "body.1.right/Relu"))
    proto.graph.node.remove(next(item for item in proto.graph.node if item.name == "body.1.right"))
    tail = next(item for item in proto.graph.initializer if item.name == node.input[1])
    tail.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tail)[:, :32].copy(), tail.name))
    for item in list(proto.graph.value_info):
        proto.graph.value_info.remove(item)
    onnx.save(proto, "model.onnx")
    result = call("calibrate", "model.onnx", "--images", small.images, "--threads", 1)
    assert result.exit_code == 0, result.output
    assert "tensors were zero on every image" in result.stdout
    assert load_ranges(Path("ranges.json")).amax["body.1.left/Relu"] == 0
    names = {str(each.name) for each in to_qdq(load_model(small.model), load_ranges(Path("ranges.json")), "openvino").graph}
    assert "body.1.left/weight/dequantize" in names
    assert "tail.conv/weight/dequantize" not in names


def test_nan_is_named_with_its_tensor(small: Small, call: Call) -> None:
    proto = onnx.load("model.onnx")
    weight = next(item for item in proto.graph.initializer if item.name == "body.0.conv.weight")
    array = numpy_helper.to_array(weight).copy()
    array[0, 0, 0, 0] = np.nan
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    onnx.save(proto, "model.onnx")
    refused(call("calibrate", "model.onnx", "--images", small.images, "--threads", 1), "body.0.conv holds NaN")
    assert not Path("ranges.json").exists()


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_int8_engines_of_a_cpu(small: Small, ranges: Path, call: Call, backend: str) -> None:
    result = call("build-engine", "model.onnx", "--int8", "--ranges", ranges, "--backend", backend, "--strict", "--threads", 1)
    assert result.exit_code == 0, result.output
    assert "Precision: int8 verified" in result.stdout
    info = load_engine(Path("engine.plan")).info
    assert info.precision.layers["int8"] == IN_INT8
    assert info.flips is not None
    assert info.flips < 0.1
    assert info.ranges_sha256 is not None
    kept = call("build-engine", "--int8", "--ranges", ranges, "--backend", backend, "--keep", "body.1.*", "--threads", 1)
    assert kept.exit_code == 0, kept.output
    assert convolutions_in_int8() == IN_INT8 - 2
    images = call("build-engine", "--int8", "--images", small.images, "--backend", backend, "--threads", 1, "--output", "i.plan")
    assert images.exit_code == 0, images.output
    assert f"Calibrating on {small.images}" in images.stdout
    assert convolutions_in_int8("i.plan") == IN_INT8
    segmented = call("segment", "engine.plan", small.images / "day_0.jpg", "--output", "out")
    assert segmented.exit_code == 0, segmented.output
    assert np.asarray(image_module.load_image(Path("out/day_0_overlay.png"))).shape == (48, 64, 3)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_dynamic_batch_takes_int8(small: Small, call: Call, backend: str) -> None:
    save_model(small_network(small.dataset, "batch"), small.model)
    command = ("build-engine", "--int8", "--images", small.images, "--backend", backend, "--max", 3, "--opt", 2, "--threads", 1)
    result = call(*command)
    assert result.exit_code == 0, result.output
    assert load_engine(Path("engine.plan")).info.batch == (1, 2, 3)
    assert convolutions_in_int8() == IN_INT8
    assert call("bench", "engine.plan", "--batch", 3, "--seconds", 0.02, "--warmup", 0, "--threads", 1).exit_code == 0


@pytest.mark.parametrize("batch", [1, "batch"])
def test_a_tensorrt_rtx_plan(small: Small, call: Call, batch: int | str) -> None:
    pytest.importorskip("tensorrt_rtx")
    save_model(small_network(small.dataset, batch), small.model)
    more = ("--max", 4) if batch == "batch" else ()
    result = call("build-engine", "--int8", "--images", small.images, "--backend", "tensorrt-rtx", "--threads", 1, *more)
    assert result.exit_code == 0, result.output
    info = load_engine(Path("engine.plan")).info
    assert info.backend == "tensorrt-rtx"
    assert info.precision.state in ("requested", "verified")
    assert info.precision.layers["int8"] == 4  # the first convolution has three channels, the last is the classifier
    assert info.batch[2] == (4 if batch == "batch" else 1)


def test_a_mix_of_three_precisions_for_tensorrt(small: Small, ranges: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    model = load_model(small.model)
    spec, options = spec_of(model, "model.onnx"), BuildOptions(precision="int8", mixed=True)
    fp32 = ("body.1.left", "body.1.left/Relu", "stem.0", "stem.0/Relu")
    ready = prepare_model(model, "tensorrt-rtx", options, load_ranges(ranges), ["body.1.*", "body.0.conv", "tail.conv"][:1], fp32)
    engine = build(ready, spec, "tensorrt-rtx", options)
    assert engine.info.options["mixed"] is True
    assert engine.info.precision.state == "requested"
    assert dict(engine.info.precision.layers) == {"int8": 2, "fp16": 2, "fp32": 2}


@pytest.mark.parametrize(
    ("more", "message", "code"),
    [
        (["--int8"], "INT8 needs ranges", 1),
        (["--int8", "--ranges", "no.json"], "no.json", 1),
        (["--int8", "--ranges", "ranges.json", "--images", "x"], "cannot be combined", 2),
        (["--fp16", "--ranges", "ranges.json"], "belong to --int8", 2),
        (["--keep", "x"], "belong to --int8", 2),
        (["--int8", "--ranges", "ranges.json", "--keep", "nowhere*"], "matches no node", 1),
        (["--int8", "--ranges", "ranges.json", "--keep", "*"], "Nothing in the model can be quantised", 1),
    ],
)
def test_calls_that_cannot_be(ranges: Path, call: Call, more: list[str], message: str, code: int) -> None:
    refused(call("build-engine", "--backend", "onnxruntime", *more), message, code)


def test_an_option_that_the_backend_lacks_is_refused_before_the_images_are_shown(small: Small, call: Call) -> None:
    result = call("build-engine", "--int8", "--images", small.images, "--backend", "openvino", "--timing-cache", "no.cache", "--plugins")
    refused(result, "OpenVINO has no --timing-cache, --plugins")
    assert "Calibrating" not in result.stdout


def test_ranges_that_do_not_fit_are_refused(small: Small, ranges: Path, call: Call) -> None:
    command = ("build-engine", "--int8", "--ranges", "r.json", "--backend", "onnxruntime")
    data = json.loads(ranges.read_text())
    del data["amax"]["body.0.conv/Relu"]
    Path("r.json").write_text(json.dumps(data))
    refused(call(*command), "no tensor body.0.conv/Relu")
    shutil.copy(ranges, "r.json")
    edit_ranges(Path("r.json"), weights_sha256="0" * 64, model="other")
    refused(call(*command), "other weights or another configuration (other, 000000000000)")
    Path("r.json").write_text(ranges.read_text()[:-40])
    refused(call(*command), "r.json is not a ranges file")
    shutil.copy(ranges, "r.json")
    edit_ranges(Path("r.json"), amax={"stem.0": float("nan")})
    refused(call(*command), "it is not JSON: invalid character")
    write_small(Path("b"), seed=1).model.replace(small.model)
    shutil.copy(ranges, "r.json")
    refused(call(*command), "other weights")


def restamp(path: Path, **values: Any) -> None:
    """The model of the same weights with another preprocessing."""
    model = load_model(path)
    spec = read_spec(model)
    assert spec is not None
    stamp_spec(model, replace(spec, sha256="ab" * 32, **values))
    save_model(model, path)


@pytest.mark.parametrize("values", [{"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}, {"resize": "letterbox"}])
def test_ranges_of_another_preprocessing_are_refused_by_every_command(small: Small, call: Call, values: dict[str, Any]) -> None:
    restamp(small.model)
    assert call("calibrate", "model.onnx", "--images", small.images, "--threads", 1).exit_code == 0
    restamp(small.model, **values)
    told = "These ranges were measured with mean 0.485,0.456,0.406, std 0.229,0.224,0.225 and resize stretch; the model small takes "
    told += "resize letterbox" if "resize" in values else "mean 0.0,0.0,0.0, std 1.0,1.0,1.0 and resize stretch."
    about = ("model.onnx", "--backend", "onnxruntime", "--threads", 1)
    for command in (("build-engine", "--int8"), ("tune", "--dataset", small.dataset, "--root", small.root)):
        result = call(*command, *about, "--ranges", "ranges.json")
        refused(result, told.replace("takes resize", "takes mean 0.485,0.456,0.406, std 0.229,0.224,0.225 and resize"))
    text = f'name = "small"\ndataset = "{small.dataset}"\n[architecture]\nname = "small"\n[input]\nsize = [48, 64]\n'
    Path("r.toml").write_text(text + '[build]\nprecision = "int8"\nranges = "ranges.json"\n')
    refused(call("build-engine", *about, "--recipe", "r.toml"), "These ranges were measured with")
    assert call("calibrate", "model.onnx", "--images", small.images, "--threads", 1).exit_code == 0
    built = call("build-engine", "--int8", *about, "--ranges", "ranges.json")
    assert built.exit_code == 0, built.output


def test_shipped_ranges_are_refused_for_another_preprocessing(small: Small, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    restamp(small.model)
    Path("calibration").mkdir()
    assert call("calibrate", "--images", small.images, "--threads", 1, "-o", "calibration/small.json").exit_code == 0
    monkeypatch.setattr(ranges_module, "content_dir", Path)
    command = ("build-engine", "--int8", "--backend", "onnxruntime", "--threads", 1)
    restamp(small.model, mean=(0.0, 0.0, 0.0))
    refused(call(*command), "the model small takes mean 0.0,0.0,0.0, std 0.229,0.224,0.225 and resize stretch.")
    restamp(small.model, mean=IMAGENET_MEAN)
    assert "Ranges: those that come with small (mse, 4 images)." in call(*command).stdout
    assert Path("engine.plan").exists()


def open_and_unstamped(path: Path) -> None:
    """Takes a model's stamp away, and opens its batch, height and width."""
    proto = onnx.load(path)
    del proto.metadata_props[:]
    del proto.graph.value_info[:]
    for value, names in ((proto.graph.input[0], ("batch", "height", "width")), (proto.graph.output[0], ("batch", "rows", "columns"))):
        for name, index in zip(names, (0, 2, 3), strict=True):
            value.type.tensor_type.shape.dim[index].dim_param = name
    onnx.save(proto, path)


def test_ranges_of_a_dynamic_model_from_elsewhere_hold_at_every_size(small: Small, call: Call) -> None:
    open_and_unstamped(small.model)
    about = ("--mean", "0,0,0", "--std", "1,1,1", "--threads", 1)
    result = call("calibrate", "model.onnx", "--images", small.images, *about, "--input", "48x64")
    assert result.exit_code == 0, result.output
    build = ("build-engine", "model.onnx", "--int8", "--ranges", "ranges.json", "--backend", "onnxruntime")
    for size, batch in (("48x64", 1), ("96x80", 2)):
        built = call(*build, *about, "--input", size, "--max", batch)
        assert built.exit_code == 0, built.output
        info = load_engine(Path("engine.plan")).info
        assert ("x".join(map(str, info.spec.size)), info.batch[2]) == (size, batch)
        assert convolutions_in_int8() == IN_INT8
        Path("engine.plan").unlink()
        Path("engine.plan.json").unlink()
    other = call(*build, "--mean", "0,0,0", "--std", "1,1,0.5", "--input", "96x80")
    refused(other, "measured with mean 0.0,0.0,0.0, std 1.0,1.0,1.0 and resize stretch; the model model.onnx takes")
    write_small(Path("b"), seed=1).model.replace(small.model)
    open_and_unstamped(small.model)
    refused(call(*build, *about, "--input", "48x64"), "other weights")


def test_ranges_of_version_1_are_judged(small: Small, ranges: Path, call: Call) -> None:
    data = json.loads(ranges.read_text())
    for key in ("version", "mean", "std", "resize"):
        del data[key]
    ranges.write_text(json.dumps(data))
    command = ("build-engine", "--int8", "--ranges", "ranges.json", "--backend", "onnxruntime", "--threads", 1)
    result = call(*command)
    assert result.exit_code == 0, result.output
    assert "ranges.json is of version 1, which does not record the preprocessing; mean 0.485,0.456,0.406, std" in result.stdout
    Path("engine.plan").unlink()
    Path("engine.plan.json").unlink()
    ranges.write_text(json.dumps(data | {"version": 9}))
    refused(call(*command), "ranges.json is a ranges file of version 9; this rtformer-deploy reads versions 1 to 3.")


def test_a_recipe_says_how_to_build_and_for_which_model(small: Small, ranges: Path, call: Call) -> None:
    head = f'name = "small"\ndataset = "{small.dataset}"\n[architecture]\nname = "small"\n[input]\nsize = [48, 64]\n[build]\n'
    command = ("build-engine", "--recipe", "r.toml", "--backend", "openvino", "--threads", 1)

    def recipe(text: str) -> None:
        Path("r.toml").write_text(head + text)

    recipe('precision = "int8"\nkeep = ["body.1.left"]\nranges = "ranges.json"\nbackend = "openvino"\n')
    refused(call(*command, "--int8"), "leave --fp32, --fp16, --int8, --fp8 and --keep out", 2)
    refused(call(*command, "--ranges", "ranges.json"), "leave --ranges and --images out", 2)
    recipe('precision = "int8"\nkeep = "body"\n')
    refused(call(*command), "build.keep is 'body'; expected a list")
    recipe('precision = "int8"\nheat = 3\n')
    refused(call(*command), "keys that mean nothing: build.heat")
    recipe('precision = "int8"\nranges = "ranges.json"\nranges_sha256 = "' + "00" * 32 + '"\n')
    refused(call(*command), "not the ranges file that the mix was tuned with")
    for key in ("weights_sha256", "model_sha256"):
        recipe(f'precision = "int8"\nranges = "ranges.json"\n{key} = "{"00" * 32}"\n')
        refused(call(*command), "tuned for other weights")
    Path("r.toml").write_text(head.replace('"small"\ndataset', '"large"\ndataset'))
    refused(call(*command), "The recipe is large's; the model is small.")
    recipe('precision = "int8"\nkeep = ["body.1.left"]\nranges = "ranges.json"\nbackend = "onnxruntime"\n')
    result = call(*command)
    assert result.exit_code == 0, result.output
    assert "tuned on onnxruntime; on openvino its mIoU and latency were not measured" in result.stdout
    assert convolutions_in_int8() == 3
    recipe('precision = "fp16"\n')
    assert call(*command).exit_code == 0
    assert load_engine(Path("engine.plan")).info.precision.asked == "fp16"


def test_lint_of_a_file(small: Small, ranges: Path, call: Call) -> None:
    plain = call("inspect", "model.onnx", "--lint")
    assert (plain.exit_code, plain.stdout) == (0, "0 placements cost something.\n")
    save_model(to_qdq(load_model(small.model), load_ranges(ranges), "tensorrt"), Path("q.onnx"))
    told = call("inspect", "q.onnx", "--lint")
    assert told.exit_code == 0, told.output
    assert "(ONNX Runtime, OpenVINO): int8 activations" in told.stdout
    as_json = json.loads(call("inspect", "q.onnx", "--lint", "--json").stdout)
    assert {each["where"] for each in as_json} == {"ONNX Runtime, OpenVINO", "ONNX Runtime"}
    assert told.stdout.endswith(f"{len(as_json)} placements cost something.\n")
    refused(call("inspect", "no.onnx", "--lint"), "no.onnx")
    refused(call("build-engine", "q.onnx", "--int8", "--backend", "onnxruntime", "--ranges", str(ranges)), "The model is quantised already")
    refused(call("calibrate", "q.onnx", "--images", str(small.images)), "calibrate is for models in floating point")
    built = call("build-engine", "q.onnx", "--backend", "onnxruntime")
    assert "The model is quantised already (7 DequantizeLinear, 3 QuantizeLinear); the engine keeps that." in built.stdout


@pytest.mark.parametrize("placement", ["tensorrt", "openvino", "onnxruntime"])
def test_what_a_concat_joins_shares_one_scale(small: Small, ranges: Path, placement: Any) -> None:
    found = load_ranges(ranges)
    assert found.amax["body.1.left/Relu"] != found.amax["body.1.right/Relu"]
    model = to_qdq(load_model(small.model), found, placement)
    tail = next(node for node in model.graph if node.name == "tail.conv")
    scale = constant(producer(tail.inputs[0]).inputs[1])
    levels = 127 if placement == "tensorrt" else 255  # of an unsigned byte: ReLUs are joined
    assert float(scale) == pytest.approx(found.amax["join/Concat"] / levels, rel=1e-3)
    assert not [finding for finding in lint(model) if "different scales" in finding.why]
