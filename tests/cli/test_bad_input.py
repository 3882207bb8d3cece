"""Bad input on the command line: one clear message, the right exit code, and nothing lost or half-written."""

from __future__ import annotations

import errno
import json
import os
import pickle
import re
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner, Result
from exports import exported
from helpers import tiny_model, tiny_spec

from rtformer_deploy.cli import main
from rtformer_deploy.formats.model_file import SPEC_KEY, save_model, serialize_model, stamp_spec


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refused(result: Result, pattern: str, code: int = 1) -> str:
    """The message, after checking that it is one, that it fits, and that no traceback came with it."""
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert result.output.count("Error: ") == 1
    assert "Traceback" not in result.output
    assert re.search(pattern, result.output), result.output
    return result.output


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in; the test ends with a look at what it holds."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stamped() -> onnx.ModelProto:
    model = tiny_model()
    stamp_spec(model, tiny_spec())
    return onnx.load_from_string(serialize_model(model))


def test_a_missing_model(here: Path) -> None:
    refused(run("build-engine"), r"Cannot read an ONNX model model\.onnx: No such file")
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "model.onnx is empty"),
        (b"just a line of text\n", "is not an ONNX model"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "is not an ONNX model"),
        ("half", "not an ONNX model, or was cut short|is not a valid ONNX model"),
    ],
    ids=["empty", "text", "png", "truncated"],
)
@pytest.mark.parametrize("command", ["build-engine", "bench", "inspect"])
def test_a_file_that_is_no_model(here: Path, content: bytes | str, message: str, command: str) -> None:
    whole = stamped().SerializeToString()
    (here / "model.onnx").write_bytes(whole[: len(whole) // 2] if isinstance(content, str) else content)
    refused(run(command, "model.onnx"), message)
    assert [path.name for path in here.iterdir()] == ["model.onnx"]


def test_a_model_with_another_input(here: Path) -> None:
    proto = stamped()
    proto.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    cast = proto.graph.node.add(op_type="Cast", input=["input"], output=["as_float"])
    cast.attribute.append(onnx.helper.make_attribute("to", onnx.TensorProto.FLOAT))
    nodes = [cast, *[node for node in proto.graph.node if node != cast]]
    for node in nodes[1:]:
        node.input[:] = ["as_float" if name == "input" else name for name in node.input]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del proto.graph.node[:]
    proto.graph.node.extend(copies)
    onnx.save(proto, here / "model.onnx")
    refused(run("build-engine", "--backend", "onnxruntime"), "an engine takes one float input")
    del proto.metadata_props[:]
    onnx.save(proto, here / "model.onnx")
    refused(run("build-engine", "--backend", "onnxruntime"), r"the input input is uint8 .*must be float32")
    assert [path.name for path in here.iterdir()] == ["model.onnx"]


def test_a_model_from_elsewhere_says_what_is_missing_and_takes_it(here: Path) -> None:
    proto = stamped()
    del proto.metadata_props[:]
    onnx.save(proto, here / "other.onnx")
    text = refused(run("build-engine", "other.onnx"), "was not exported by rtformer-deploy")
    assert "--mean, --std missing" in text
    said = ["--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"]
    done = run("build-engine", "other.onnx", *said, "--backend", "onnxruntime")
    assert done.exit_code == 0, done.output
    refused(run("build-engine", "other.onnx", *said, "--classes", "cityscapes"), "gives 5 classes; --classes cityscapes are 19")


def test_a_damaged_stamp(here: Path) -> None:
    proto = stamped()
    next(prop for prop in proto.metadata_props if prop.key == SPEC_KEY).value = "{"
    onnx.save(proto, here / "model.onnx")
    refused(run("build-engine"), "cannot be read")


def test_weights_of_another_variant(here: Path, shared: Path) -> None:
    command = ("import-weights", shared / "golden" / "slim.pdparams", "--recipe", "rtformer-base-cityscapes")
    text = refused(run(*command), "does not fit this network")
    assert "misshapen" in text
    assert list(here.iterdir()) == []


def test_a_hostile_pickle(here: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, ("touch ran",)

    (here / "model.pdparams").write_bytes(pickle.dumps({"conv1.0.weight": Hostile()}))
    refused(run("import-weights", "model.pdparams", "--recipe", "rtformer-slim-cityscapes"), r"it asks for (posix|nt)\.system")
    assert [path.name for path in here.iterdir()] == ["model.pdparams"]


def test_golden_weights_come_in_and_go_out(here: Path, shared: Path) -> None:
    done = run("import-weights", shared / "golden" / "slim.pdparams", "--recipe", "rtformer-slim-cityscapes")
    assert done.exit_code == 0, done.output
    assert "5,365,043 parameters, 19 classes" in done.output
    done = run("export", "--weights", "slim.safetensors", "--size", "96x160")
    assert done.exit_code == 0, done.output
    assert "The weights say what they are: rtformer-slim-cityscapes, 19 classes." in done.output


@pytest.fixture
def plan(here: Path) -> Path:
    save_model(exported().model, here / "model.onnx")
    done = run("build-engine", "--backend", "onnxruntime")
    assert done.exit_code == 0, done.output
    return here / "engine.plan"


def change(plan: Path, **values: object) -> None:
    beside = plan.with_name("engine.plan.json")
    beside.write_text(json.dumps(json.loads(beside.read_text()) | values))


@pytest.mark.parametrize("command", [("bench", "engine.plan"), ("segment", "engine.plan", "x.png", "--output", "out")])
def test_plans_that_do_not_fit(plan: Path, command: tuple[str, ...]) -> None:
    original = plan.read_bytes()
    plan.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    refused(run(*command), "SHA-256 differs")
    plan.write_bytes(original[: len(original) // 2])
    refused(run(*command), "SHA-256 differs")
    plan.write_bytes(original)
    change(plan, builder_version="99.1.0")
    assert "rtformer-deploy build-engine" in refused(run(*command), r"99\.1")
    change(plan, builder_version="1.2.0", backend="nobody")
    refused(run(*command), "nobody")
    plan.with_name("engine.plan.json").unlink()
    refused(run(*command), r"no engine\.plan\.json beside it")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_a_damaged_sidecar(plan: Path, text: str) -> None:
    plan.with_name("engine.plan.json").write_text(text)
    refused(run("bench", "engine.plan"), r"engine\.plan\.json cannot be read")


def test_a_tensorrt_plan_on_a_machine_without_a_gpu(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx")
    monkeypatch.setattr("rtformer_deploy.backends.tensorrt.plan.gpus", lambda: ())
    save_model(exported().model, here / "model.onnx")
    assert run("build-engine", "--fp16", "--backend", "tensorrt-rtx").exit_code == 0
    text = refused(run("bench", "engine.plan"), "GPU")
    assert "rtformer-deploy build-engine" in text


@pytest.mark.parametrize("output", ["nowhere/model.onnx", ".", "a_file/model.onnx"])
def test_an_output_that_cannot_be_written_is_said_before_the_work(here: Path, output: str) -> None:
    (here / "a_file").write_text("x")
    refused(run("export", "--variant", "slim", "--output", output), "Cannot write")
    assert [path.name for path in here.iterdir()] == ["a_file"]


def test_a_full_disk_leaves_the_old_file(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(exported().model, here / "model.onnx")
    (here / "engine.plan").write_bytes(b"the old one")
    (here / "engine.plan.json").write_text('{"plan_sha256": "", "spec": {}, "backend": ""}')

    def full(_number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    refused(run("build-engine", "--backend", "onnxruntime"), r"Cannot write engine\.plan\.json: No space left on device")
    assert (here / "engine.plan").read_bytes() == b"the old one"
    assert json.loads((here / "engine.plan.json").read_text())["backend"] == ""
    assert sorted(path.name for path in here.iterdir()) == ["engine.plan", "engine.plan.json", "model.onnx"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("export",),
        ("export", "--variant", "tiny"),
        ("export", "--variant", "slim", "--size", "1024"),
        ("export", "--variant", "slim", "--size", "8x8"),
        ("export", "--variant", "slim", "--batch", "many"),
        ("export", "--variant", "slim", "--recipe", "rtformer-slim-camvid"),
        ("train", "--recipe", "rtformer-slim-camvid", "--root", ".", "--output", "out", "--crop", "0x32"),
        ("build-engine", "--backend", "none"),
        ("build-engine", "--max", "axb"),
        ("bench",),
        ("nothing",),
    ],
)
def test_usage(here: Path, arguments: tuple[str, ...]) -> None:
    refused(run(*arguments), "Error: ", code=2)
    assert list(here.iterdir()) == []


def test_profiles_that_do_not_fit(here: Path) -> None:
    save_model(exported().model, here / "model.onnx")
    refused(run("build-engine", "--max", "1x3x64x64"), "an engine has one spatial size", code=2)
    refused(run("build-engine", "--max", "4", "--backend", "openvino"), "fixed batch of 1")
    refused(run("build-engine", "--min", "4", "--max", "2"), "do not rise", code=2)


def test_an_unknown_recipe_lists_the_known(here: Path) -> None:
    refused(run("export", "--recipe", "rtformer-huge"), "rtformer-slim-cityscapes")


def test_a_cpu_build_refuses_what_a_gpu_builder_takes(here: Path) -> None:
    save_model(exported().model, here / "model.onnx")
    refused(run("build-engine", "--backend", "openvino", "--workspace", "64"), "OpenVINO has no --workspace")


def test_strict_refuses_fp16_on_a_cpu_and_writes_nothing(here: Path) -> None:
    save_model(exported().model, here / "model.onnx")
    refused(run("build-engine", "--fp16", "--strict", "--backend", "openvino"), "on a CPU FP16 is storage")
    assert [path.name for path in here.iterdir()] == ["model.onnx"]
