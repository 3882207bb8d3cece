"""`triton` writes repositories: what is in them, and that nothing of others is ever replaced."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from helpers import frames, hide, tiny_model, tiny_spec
from tensorrt_plans import half_ends, make_info
from triton_repositories import LARGEST, config, files, run, tiny_plan, write_model, write_plan, write_tensorrt

from rtformer_deploy.backends import open_engine
from rtformer_deploy.errors import DeployError
from rtformer_deploy.formats.engine_file import load_engine
from rtformer_deploy.formats.model_file import save_model
from rtformer_deploy.formats.spec_file import load_spec
from rtformer_deploy.opening import open_any
from rtformer_deploy.triton import repository
from rtformer_deploy.triton.steps import open_step, postprocessing, preprocessing
from rtformer_deploy.types import Head, Refit

PYTHON = {
    "rtformer-deploy.json",
    "tiny/config.pbtxt",
    "tiny/1/.keep",
    "tiny_decode/config.pbtxt",
    "tiny_decode/1/model.py",
    "tiny_decode/warmup/picture",
    "tiny_rgb/config.pbtxt",
    "tiny_rgb/1/model.py",
    "tiny_rgb/1/engine.plan",
    "tiny_rgb/1/engine.plan.json",
}
AROUND = {
    "rtformer-deploy.json",
    "tiny/config.pbtxt",
    "tiny/1/.keep",
    "tiny_decode/config.pbtxt",
    "tiny_decode/1/model.py",
    "tiny_decode/warmup/picture",
    "tiny_rgb/config.pbtxt",
    "tiny_rgb/1/.keep",
    "tiny_preprocess/config.pbtxt",
    "tiny_preprocess/1/model.py",
    "tiny_preprocess/1/spec.json",
    "tiny_postprocess/config.pbtxt",
    "tiny_postprocess/1/model.py",
    "tiny_postprocess/1/spec.json",
    "tiny_postprocess/warmup/sizes",
    "tiny_engine/config.pbtxt",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(*arguments: str | Path) -> str:
    result = run("repo", *arguments)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_cpu_plan_becomes_a_python_model(here: Path) -> None:
    output = written(write_plan(here / "tiny.plan"), "--instances", "2", "--threads", "3", "--max-delay-ms", "1.5", "--queue", "9")
    repo = here / "repo"
    assert set(files(repo)) == PYTHON
    engine = load_engine(repo / "tiny_rgb" / "1" / "engine.plan")
    assert engine.plan == (here / "tiny.plan").read_bytes()
    assert (repo / "tiny_rgb/1/engine.plan.json").read_bytes() == (here / "tiny.plan.json").read_bytes()
    rgb = config(repo, "tiny_rgb")
    assert (rgb["backend"], rgb["max_batch_size"]) == (["python"], [LARGEST])
    assert rgb["input"] == [{"name": ["image"], "data_type": ["TYPE_UINT8"], "dims": [-1, -1, 3], "allow_ragged_batch": [True]}]
    assert rgb["output"] == [{"name": ["labels"], "data_type": ["TYPE_UINT8"], "dims": [-1, -1]}]
    assert rgb["instance_group"] == [{"count": [2], "kind": ["KIND_CPU"]}]
    (batching,) = rgb["dynamic_batching"]
    assert (batching["preferred_batch_size"], batching["max_queue_delay_microseconds"]) == ([2, LARGEST], [1500])
    assert batching["default_queue_policy"][0]["max_queue_size"] == [9]
    assert config(repo, "tiny_decode")["dynamic_batching"][0]["default_queue_policy"] == batching["default_queue_policy"]
    assert [each["batch_size"] for each in rgb["model_warmup"]] == [[1], [LARGEST]]
    assert {each["key"][0]: each["value"][0]["string_value"][0] for each in rgb["parameters"]} == {"step": "segment", "threads": "3"}
    ensemble = config(repo, "tiny")
    assert ensemble["platform"] == ["ensemble"]
    assert [step["model_name"] for step in ensemble["ensemble_scheduling"][0]["step"]] == [["tiny_decode"], ["tiny_rgb"]]
    assert ensemble["output"] == [{"name": ["labels"], "data_type": ["TYPE_UINT8"], "dims": [-1, -1, -1]}]
    assert re.search(r"tiny needs rtformer-deploy\S* ?\S* with onnxruntime \S+ or newer in the Python of Triton's Python backend\.", output)
    assert "never started" not in output
    assert "Start it: tritonserver --model-repository=repo\n" in output


def test_a_tensorrt_plan_runs_in_tritons_own_backend(here: Path) -> None:
    output = written(write_tensorrt(here / "tiny.plan"), "--tensorrt", "10.3.0.26", "--gpu", "NVIDIA Fake (8.6)", "--device", "1")
    repo = here / "repo"
    assert set(files(repo)) == AROUND | {"tiny_engine/1/model.plan", "tiny_engine/1/model.plan.json"}
    engine = config(repo, "tiny_engine")
    assert (engine["platform"], engine["default_model_filename"], engine["max_batch_size"]) == (["tensorrt_plan"], ["model.plan"], [3])
    assert engine["input"] == [{"name": ["input"], "data_type": ["TYPE_FP32"], "dims": [3, 64, 96]}]
    assert engine["output"] == [{"name": ["logits"], "data_type": ["TYPE_FP32"], "dims": [5, 8, 12]}]
    assert engine["instance_group"] == [{"count": [1], "kind": ["KIND_GPU"], "gpus": [1], "profile": ["0"]}]
    assert engine["dynamic_batching"][0]["preferred_batch_size"] == [2, 3]
    steps = config(repo, "tiny_rgb")["ensemble_scheduling"][0]["step"]
    assert [step["model_name"] for step in steps] == [["tiny_preprocess"], ["tiny_engine"], ["tiny_postprocess"]]
    need = "TensorRT 10.3.0, no other build"
    assert f"tiny needs {need}." in output
    assert "tiny needs this GPU: NVIDIA Fake (8.6)." in output
    assert f"# Needs {need}." in (repo / "tiny_engine" / "config.pbtxt").read_text()
    manifest = json.loads((repo / "rtformer-deploy.json").read_text())
    assert need in manifest["models"][0]["needs"]


@pytest.mark.parametrize("head", ["lowres", "labels"])
def test_fp16_ends_are_fp16_in_every_configuration_and_in_the_steps(here: Path, head: Head) -> None:
    info = half_ends(make_info(head))
    written(write_tensorrt(here / "tiny.plan", spec=info.spec, inputs=info.inputs, outputs=info.outputs))
    repo, given, made = here / "repo", "TYPE_FP16", "TYPE_UINT8" if head == "labels" else "TYPE_FP16"
    engine, before, after = (config(repo, f"tiny_{name}") for name in ("engine", "preprocess", "postprocess"))
    assert [part["data_type"] for part in (engine["input"][0], before["output"][0])] == [[given], [given]]
    assert [part["data_type"] for part in (engine["output"][0], after["input"][0])] == [[made], [made]]
    parameters = {each["key"][0]: each["value"][0]["string_value"][0] for each in before["parameters"]}
    model = {"parameters": {key: {"string_value": value} for key, value in parameters.items()}}
    step = open_step({"model_repository": str(repo / "tiny_preprocess"), "model_version": "1", "model_config": json.dumps(model)})
    (frame,) = frames((50, 80))
    (answer,) = step.run([{"frames": frame[None]}])
    assert not isinstance(answer, DeployError)
    exact = preprocessing(info.spec, 1)(frame[None])["tensor"]
    assert exact.dtype == np.float32
    np.testing.assert_array_equal(answer["tensor"].view(np.uint16), exact.astype(np.float16).view(np.uint16))


def test_fp16_logits_become_the_labels_that_they_mean() -> None:
    spec, sizes = tiny_spec("batch"), np.array([[50, 80]], np.int32)
    logits = np.random.default_rng(0).standard_normal((1, 5, 8, 12)).astype(np.float16)
    found, wanted = (postprocessing(spec, 1)(each, sizes)["labels"] for each in (logits, logits.astype(np.float32)))
    np.testing.assert_array_equal(found, wanted)


def test_a_plan_of_one_batch_names_it_itself(here: Path) -> None:
    spec = tiny_spec(1)
    written(write_tensorrt(here / "tiny.plan", spec=spec, inputs=(spec.input,), outputs=(spec.output,), batch=(1, 1, 1)))
    engine = config(here / "repo", "tiny_engine")
    assert (engine["max_batch_size"], engine["input"][0]["dims"], engine["output"][0]["dims"]) == ([0], [1, 3, 64, 96], [1, 5, 8, 12])
    assert "preferred_batch_size" not in engine["dynamic_batching"][0]
    assert "profile" not in engine["instance_group"][0]


def test_a_version_compatible_plan_says_the_argument_it_needs(here: Path) -> None:
    plan = write_tensorrt(here / "tiny.plan", options={"version_compatible": True, "hardware_compatible": True})
    output = written(plan, "--tensorrt", "10.9", "--gpu", "9.0")
    assert "TensorRT 10.3.0 or a newer 10.x" in output
    assert "an NVIDIA GPU of compute capability 8.0 or newer" in output
    assert "--model-repository=repo --backend-config=tensorrt,version-compatible=true\n" in output


@pytest.mark.parametrize("bindings", [False, True])
def test_a_tensorrt_rtx_plan_is_a_python_model_on_a_gpu(here: Path, bindings: bool) -> None:
    version = "tensorrt 1.7.0 (bindings over TensorRT-RTX: an RTX plan)" if bindings else "tensorrt-rtx 1.7.0"
    backend = "tensorrt" if bindings else "tensorrt-rtx"
    output = written(write_tensorrt(here / "tiny.plan", backend=backend, builder_version=version, gpu="compute capability 8.6, 8.9"))
    rgb = config(here / "repo", "tiny_rgb")
    assert (rgb["backend"], rgb["instance_group"]) == (["python"], [{"count": [1], "kind": ["KIND_GPU"], "gpus": [0]}])
    assert "tiny needs an NVIDIA GPU of compute capability 8.6, 8.9." in output
    assert f"tiny needs {version} there, no other version." in output
    assert "such a model was never started in Triton so far" in output


def test_an_onnx_model_gets_an_accelerator(here: Path) -> None:
    output = written(write_model(here / "tiny.onnx"), "--accelerator", "tensorrt", "--fp16", "--max-batch", "16")
    repo = here / "repo"
    assert set(files(repo)) == AROUND | {"tiny_engine/1/model.onnx"}
    engine = config(repo, "tiny_engine")
    assert (engine["backend"], engine["max_batch_size"], engine["instance_group"][0]["kind"]) == (["onnxruntime"], [16], ["KIND_GPU"])
    (one,) = engine["optimization"][0]["execution_accelerators"][0]["gpu_execution_accelerator"]
    assert one == {"name": ["tensorrt"], "parameters": [{"key": ["precision_mode"], "value": ["FP16"]}]}
    assert "tiny needs Triton's onnxruntime backend with the accelerator tensorrt." in output
    written(here / "tiny.onnx", "--accelerator", "openvino")
    engine = config(repo, "tiny_engine")
    assert engine["optimization"] == [{"execution_accelerators": [{"cpu_execution_accelerator": [{"name": ["openvino"]}]}]}]
    assert (engine["max_batch_size"], engine["instance_group"]) == ([8], [{"count": [1], "kind": ["KIND_CPU"]}])
    written(here / "tiny.onnx", "--accelerator", "none")
    assert "optimization" not in config(repo, "tiny_engine")


@pytest.mark.parametrize("head", ["lowres", "labels"])
def test_the_three_steps_around_an_onnx_model_give_what_segment_gives(here: Path, head: str) -> None:
    """Preprocessing, the file that Triton's onnxruntime would run, postprocessing; here on ONNX Runtime itself."""
    assert head in ("lowres", "labels")
    write_model(here / "tiny.onnx", head="labels" if head == "labels" else "lowres")
    output = written(here / "tiny.onnx")
    assert "Accelerator " in output
    repo = here / "repo"
    (frame,) = frames((50, 80))
    with open_any(here / "tiny.onnx") as runner:
        (wanted,) = runner.run([frame])
        spec = runner.spec
    tensors = preprocessing(spec, 1)(np.stack([frame, frame]))
    session = ort.InferenceSession(str(repo / "tiny_engine" / "1" / "model.onnx"), providers=["CPUExecutionProvider"])
    (output_values,) = session.run(None, {"input": tensors["tensor"]})
    labels = postprocessing(spec, 1)(output_values, tensors["sizes"])["labels"]
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, np.stack([wanted, wanted]))
    told = config(repo, "tiny_postprocess")["input"][0]
    assert told["data_type"] == ["TYPE_UINT8" if head == "labels" else "TYPE_FP32"]


def test_a_model_from_elsewhere_carries_its_description(here: Path) -> None:
    model = tiny_model("batch")
    model.metadata_props.clear()
    save_model(model, here / "tiny.onnx")
    refused(1, "tiny.onnx", "repo", here / "tiny.onnx")
    written(here / "tiny.onnx", "--classes", "5", "--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25", "--accelerator", "none")
    repo = here / "repo"
    (frame,) = frames((50, 80))
    with open_any(repo / "tiny_engine" / "1" / "model.onnx", threads=1) as runner:
        (wanted,) = runner.run([frame])
    spec = load_spec(repo / "tiny_preprocess" / "1" / "spec.json")
    assert (spec.mean, spec.std) == ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    session = ort.InferenceSession(str(repo / "tiny_engine" / "1" / "model.onnx"), providers=["CPUExecutionProvider"])
    tensors = preprocessing(spec, 1)(frame[None])
    (values,) = session.run(None, {spec.input.name: tensors["tensor"]})
    assert np.array_equal(postprocessing(spec, 1)(values, tensors["sizes"])["labels"][0], wanted)
    assert config(repo, "tiny_engine")["output"][0]["dims"] == [5, 8, 12]


def test_several_models_are_one_repository(here: Path) -> None:
    first, second = write_plan(here / "a.plan"), write_plan(here / "b.plan", backend="openvino", batch=1)
    output = written(first, second, "--name", "road", "--name", "yard.v2")
    assert {"road", "road_rgb", "road_decode", "yard.v2", "yard.v2_rgb", "yard.v2_decode"} < {
        path.name for path in (here / "repo").iterdir()
    }
    assert re.search(r"yard\.v2 needs .* with openvino \S+ or newer", output)


def test_an_engine_of_a_fixed_batch_is_filled_up_in_python(here: Path) -> None:
    written(write_plan(here / "tiny.plan", batch=2))
    rgb = config(here / "repo", "tiny_rgb")
    assert (rgb["max_batch_size"], rgb["dynamic_batching"][0]["preferred_batch_size"]) == ([2], [2])
    with open_engine(load_engine(here / "repo" / "tiny_rgb" / "1" / "engine.plan"), threads=1) as runner:
        assert runner.run(frames((20, 30)))[0].shape == (20, 30)


def test_a_repository_is_replaced_in_whole(here: Path) -> None:
    written(write_plan(here / "tiny.plan"))
    (here / "repo" / "tiny_rgb" / "1" / "__pycache__").mkdir()
    (here / "repo" / "tiny_rgb" / "1" / "__pycache__" / "model.cpython-311.pyc").write_bytes(b"compiled by Triton's Python")
    (here / "repo" / "tiny_rgb" / "1" / "engine.plan.cache").write_bytes(b"kept by TensorRT-RTX")
    written(write_tensorrt(here / "tiny.plan"))
    assert set(files(here / "repo")) == AROUND | {"tiny_engine/1/model.plan", "tiny_engine/1/model.plan.json"}
    assert {path.name for path in here.iterdir()} == {"repo", "tiny.plan", "tiny.plan.json"}


def test_a_sidecar_that_was_completed_where_the_plan_was_opened_is_no_change(here: Path) -> None:
    for plan, place in ((write_plan(here / "tiny.plan"), "tiny_rgb/1/engine.plan"), (here / "tiny.plan", "tiny_engine/1/model.plan")):
        if "engine/" in place:
            write_tensorrt(plan)
        written(plan)
        with open(here / "repo" / f"{place}.json", "a") as file:
            file.write("\n")
        written(plan)


def test_an_empty_folder_and_a_link_are_places(here: Path) -> None:
    (here / "elsewhere").mkdir()
    (here / "repo").symlink_to("elsewhere")
    written(write_plan(here / "tiny.plan"))
    assert (here / "repo").is_symlink()
    assert set(files(here / "elsewhere")) == PYTHON
    written(here / "tiny.plan")
    assert (here / "repo").is_symlink()


def refused(code: int, words: str, *arguments: str | Path) -> None:
    """One message, and everything here is as it was."""
    before = files(Path())
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert result.output.count("Error: ") == 1
    assert words in result.output
    assert "Traceback" not in result.output
    assert files(Path()) == before
    assert not [path for path in Path().rglob(".*") if path.name != ".keep"]


def test_a_folder_of_others_is_never_replaced(here: Path) -> None:
    plan = write_plan(here / "tiny.plan")
    (here / "repo").mkdir()
    (here / "repo" / "notes.txt").write_text("mine")
    refused(1, "repo is no repository that rtformer-deploy wrote", "repo", plan, "--overwrite")
    (here / "repo" / "notes.txt").unlink()
    (here / "repo" / "resnet").mkdir()
    refused(1, "repo is no repository that rtformer-deploy wrote", "repo", plan)
    (here / "file").write_text("")
    refused(1, "file is not a folder", "file", plan)
    refused(1, "tiny.plan", here / "tiny.plan" / "repo", plan)


def test_what_was_put_into_a_repository_is_kept(here: Path) -> None:
    plan = write_plan(here / "tiny.plan")
    written(plan)
    (here / "repo" / "resnet" / "1").mkdir(parents=True)
    (here / "repo" / "resnet" / "1" / "model.onnx").write_bytes(b"another")
    refused(1, "repo holds resnet/1/model.onnx, which rtformer-deploy did not write", "repo", plan, "--overwrite")
    shutil.rmtree(here / "repo" / "resnet")
    (here / "repo" / "linked").symlink_to(here)
    refused(1, "repo holds linked, which rtformer-deploy did not write", "repo", plan)
    (here / "repo" / "linked").unlink()
    with open(here / "repo" / "tiny_rgb" / "config.pbtxt", "a") as file:
        file.write("# tuned by hand\n")
    refused(1, "repo/tiny_rgb/config.pbtxt was changed since it was written", "repo", plan)
    written(plan, "--overwrite")
    assert "by hand" not in (here / "repo" / "tiny_rgb" / "config.pbtxt").read_text()


def test_another_model_of_ours_is_kept(here: Path) -> None:
    written(write_plan(here / "tiny.plan"), "--name", "old")
    refused(1, "repo holds another model, old, which would be lost", "repo", here / "tiny.plan")
    written(here / "tiny.plan", "--overwrite")
    assert not (here / "repo" / "old").exists()


def test_a_damaged_manifest_is_one_message(here: Path) -> None:
    plan = write_plan(here / "tiny.plan")
    written(plan)
    (here / "repo" / "rtformer-deploy.json").write_text('{"models": []}')
    refused(1, "rtformer-deploy.json cannot be read: models is a list of 0 values", "repo", plan, "--overwrite")


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({}, ("--tensorrt", "10.4.0"), "was built by tensorrt 10.3.0, and TensorRT 10.4.0 does not open it"),
        ({}, ("--tensorrt", "11.3"), "does not open it"),
        ({"options": {"version_compatible": True}}, ("--tensorrt", "10.2"), "does not open it"),
        ({"options": {"version_compatible": True}}, ("--tensorrt", "11.0"), "does not open it"),
        ({}, ("--gpu", "NVIDIA Other (8.6)"), "was built for NVIDIA Fake (8.6) and does not run on NVIDIA Other (8.6)"),
        ({}, ("--gpu", "8.9"), "does not run on 8.9"),
        (
            {"backend": "tensorrt-rtx", "builder_version": "tensorrt-rtx 1.7", "gpu": "compute capability 8.6"},
            ("--gpu", "9.0"),
            "does not run",
        ),
        ({"options": {"hardware_compatible": True}}, ("--gpu", "NVIDIA Old (7.5)"), "does not run on NVIDIA Old (7.5)"),
        ({"options": {"plugins": True}}, (), "was built with --plugins"),
        ({"refit": Refit(True, {}, "ab" * 32)}, (), "The plan holds no weights: it was built with --strip."),
        ({"batch": (1, 1, 1)}, (), "takes one frame at most, so Triton would have nothing to batch"),
        ({"batch": (2, 2, 3)}, (), "takes at least 2 frames at once"),
        ({"builder_version": "unknown"}, (), "builder version 'unknown' is not a version of TensorRT"),
    ],
)
def test_a_plan_for_another_machine(here: Path, changes: dict[str, object], options: tuple[str, ...], words: str) -> None:
    refused(1, words, "repo", write_tensorrt(here / "tiny.plan", **changes), *options)


def test_a_plan_of_two_frames_alone(here: Path) -> None:
    spec = tiny_spec(2)
    plan = write_tensorrt(here / "tiny.plan", spec=spec, inputs=(spec.input,), outputs=(spec.output,), batch=(2, 2, 2))
    refused(1, "takes exactly 2 frames at once", "repo", plan)
    refused(1, "takes exactly 2 frames at once", "repo", write_model(here / "tiny.onnx", batch=2))


def test_a_cpu_plan_that_has_nothing_to_batch(here: Path) -> None:
    refused(1, "leaves its batch open but takes one frame at most", "repo", write_plan(here / "tiny.plan", largest=1))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("repo",), "No MODEL was given"),
        (("repo", "tiny.plan", "--name", "a/b"), "cannot stand in an address"),
        (("repo", "tiny.plan", "--name", "-x"), "cannot stand in an address"),
        (("repo", "tiny.plan", "--name", ""), "cannot stand in an address"),
        (("repo", "tiny.plan", "--name", "a", "--name", "b"), "2 names were given for 1 models"),
        (("repo", "tiny.plan", "other.plan", "--name", "a", "--name", "a"), "Two models have the name a"),
        (("repo", "tiny.plan", "other.plan", "--name", "a", "--name", "A_rgb"), "would both need the folder A_rgb"),
        (("repo", "tiny.plan", "--tensorrt", "10"), "--tensorrt 10 is no version of TensorRT"),
        (("repo", "tiny.plan", "--tensorrt", "10.3"), "no MODEL is a TensorRT plan"),
        (("repo", "tiny.plan", "--gpu", "H100"), "--gpu H100 is no GPU"),
        (("repo", "tiny.plan", "--gpu", "9.0"), "no MODEL is a plan for a GPU"),
        (("repo", "tiny.plan", "--accelerator", "openvino"), "--accelerator is for ONNX models"),
        (("repo", "tiny.plan", "--fp16"), "--fp16 is for ONNX models"),
        (("repo", "tiny.plan", "--max-batch", "4"), "--max-batch is for ONNX models"),
        (("repo", "tiny.onnx", "--accelerator", "openvino", "--fp16"), "--fp16 is for the accelerator tensorrt"),
        (("repo", "tiny.plan", "--check", "localhost:8000"), "so no MODEL can be given"),
        ((".", "tiny.plan"), "tiny.plan is in ., which would be replaced"),
        (("repo", "tiny.safetensors"), "is a network's weights, and Triton serves engine plans and ONNX models"),
        (("repo", "tiny.plan", "--queue", "0"), "--queue"),
        (("repo", "tiny.plan", "--deadline", "nan"), "--deadline"),
    ],
)
def test_a_call_that_is_wrong(here: Path, arguments: tuple[str, ...], words: str) -> None:
    write_plan(here / "tiny.plan")
    write_plan(here / "other.plan")
    write_model(here / "tiny.onnx")
    refused(2, words, *arguments)


@pytest.mark.parametrize("name", ["missing.plan", "missing.onnx", "empty.plan", "text.plan", "text.onnx", "changed.plan"])
def test_a_model_that_is_none(here: Path, name: str) -> None:
    (here / "empty.plan").write_bytes(b"")
    (here / "text.plan").write_text("text")
    (here / "text.onnx").write_text("text")
    write_plan(here / "changed.plan").write_bytes(b"another")
    refused(1, name, "repo", name)


def test_a_failure_in_the_middle_leaves_the_old_repository(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(write_plan(here / "tiny.plan"))
    before = files(here / "repo")
    real = os.rename

    def rename(old: object, new: object) -> None:
        if str(old).endswith(".partial"):
            raise OSError(16, "Device or resource busy")
        real(str(old), str(new))

    monkeypatch.setattr(os, "rename", rename)
    refused(1, "Device or resource busy", "repo", here / "tiny.plan")
    assert files(here / "repo") == before
    monkeypatch.undo()
    monkeypatch.chdir(here)
    monkeypatch.setattr(repository, "write_atomic", stop_writing)
    with pytest.raises(KeyError):
        repository.write_repository(repository.Repository(repository.load_manifest(here / "repo"), {"a/b": b"c"}), here / "repo")
    assert files(here / "repo") == before
    assert [path for path in here.iterdir() if path.name.startswith(".")] == []


def stop_writing(path: Path, data: bytes) -> None:
    raise KeyError(path)


def test_an_old_repository_that_cannot_be_removed_is_named(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(write_plan(here / "tiny.plan"))
    before = files(here / "repo")
    monkeypatch.setattr(shutil, "rmtree", lambda path, ignore_errors: None)  # as if Triton's user owned a file in it
    output = written(here / "tiny.plan")
    (left,) = here.glob(".repo.old-*")
    assert f"What was there before could not be removed and is now {left}." in output
    assert files(left) == before


def test_a_folder_that_cannot_be_read_is_not_replaced(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(write_plan(here / "tiny.plan"))
    real = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("tiny_rgb"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    result = run("repo", here / "tiny.plan")
    assert (result.exit_code, "tiny_rgb: Permission denied." in result.output) == (1, True)


def test_writing_needs_no_package_of_tritons(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "tritonclient", "grpc", "triton_python_backend_utils", "fastapi", "torch")
    save = write_plan(here / "tiny.plan")
    written(save)
    assert tiny_plan().info.batch[2] == LARGEST
