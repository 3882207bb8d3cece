"""Repositories that `triton` writes, in a real Triton: its labels are those that `segment` writes in the same environment.

OpenVINO and ONNX Runtime plans run as they are. The environment has no onnxruntime backend, so the ONNX model's engine is run by a Python
model in its place; everything around it is as written. TensorRT's repository is parsed and not started.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import frames
from real_triton import ROOT, Environment, Running, environment, get, started
from served import jpeg
from triton_repositories import run, write_model, write_tensorrt

pytestmark = pytest.mark.services

SIZES = ((40, 60), (64, 96), (131, 50))
#: In the place of Triton's onnxruntime backend: the same file on the same library, tensors in and tensors out.
STAND_IN = """
from pathlib import Path
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def execute(self, requests):
        answers = []
        for request in requests:
            (output,) = self._session.run(["logits"], {"input": pb_utils.get_input_tensor_by_name(request, "input").as_numpy()})
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("logits", output)]))
        return answers
"""


@pytest.fixture(scope="module")
def where() -> Environment:
    return environment()


def deploy(where: Environment, *arguments: str | Path) -> str:
    """`rtformer-deploy` in Triton's environment -> what it prints."""
    command = [where.python, "-m", "rtformer_deploy", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=where.variables())
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(where: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, engines, what `segment` writes with each, and the repository `repo`."""
    folder = tmp_path_factory.mktemp("triton")
    (folder / "pictures").mkdir()
    for index, frame in enumerate(frames(*SIZES)):
        (folder / "pictures" / f"{index}.jpg").write_bytes(jpeg(frame))
    model = write_model(folder / "onnx.onnx")
    plans = [folder / "vino.plan", folder / "ort.plan"]
    for plan, backend in zip(plans, ("openvino", "onnxruntime"), strict=True):
        deploy(where, "build-engine", model, "--backend", backend, "--max", "4", "--opt", "2", "--output", plan)
    for each in (*plans, model):
        deploy(where, "segment", each, folder / "pictures", "--output", folder / f"{each.stem}_out")
    deploy(where, "triton", folder / "repo", *plans, model, "--max-batch", "4", "--max-delay-ms", "2", "--helpers", "1", "--queue", "16")
    return folder


@pytest.fixture(scope="module")
def running(where: Environment, folder: Path) -> Iterator[Running]:
    repo = folder / "repo"
    config = repo / "onnx_engine" / "config.pbtxt"
    text = config.read_text()
    assert 'backend: "onnxruntime"\n' in text
    text = text.replace('backend: "onnxruntime"\n', 'backend: "python"\n').replace('default_model_filename: "model.onnx"\n', "")
    config.write_text(re.sub(r"^optimization \{.*?^\}\n", "", text, flags=re.DOTALL | re.MULTILINE))
    (repo / "onnx_engine" / "1" / "model.py").write_text(STAND_IN)
    with started(where, repo, folder) as triton:
        yield triton


@pytest.fixture(scope="module")
def found(where: Environment, folder: Path, running: Running) -> dict[str, Any]:
    """What clients of both protocols get; see triton_clients.py."""
    pictures = sorted((folder / "pictures").iterdir())
    pairs = {
        name: [(str(each), str(folder / f"{name}_out" / f"{each.stem}_labels.png")) for each in pictures]
        for name in ("vino", "ort", "onnx")
    }
    plan = folder / "clients.json"
    plan.write_text(json.dumps({"repository": str(folder / "repo"), "http": running.http, "grpc": running.grpc, "models": pairs}))
    script = ROOT / "tests" / "services" / "triton_clients.py"
    done = subprocess.run([where.python, script, plan], capture_output=True, text=True, check=False, timeout=150, env=where.variables())
    assert done.returncode == 0, done.stderr
    answers: dict[str, Any] = json.loads(done.stdout)
    return answers


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_labels_are_those_of_segment_bit_for_bit(found: dict[str, Any], protocol: str) -> None:
    assert found[protocol]["equal"] == {"vino": True, "ort": True, "onnx": True}


def test_every_configuration_is_in_tritons_schema(found: dict[str, Any], folder: Path) -> None:
    assert found["parsed"] == sorted(path.name for path in (folder / "repo").iterdir() if path.is_dir())
    assert len(found["parsed"]) == 3 + 3 + 6


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_wrong_requests_get_tritons_errors(found: dict[str, Any], protocol: str) -> None:
    wanted = {
        "type": r"data-type is 'UINT8', but the model 'vino' configuration specifies 'BYTES|expects .*BYTES",
        "type of frames": r"FP32.*UINT8|UINT8.*FP32",
        "rank": r"unexpected shape for input 'image' for model 'vino_rgb'",
        "channels": r"unexpected shape for input 'image' for model 'vino_rgb'",
        "no pixels": r"expected RGB uint8 \(N, H, W, 3\)",
        "batch": r"batch-size must be <= 4 for 'vino_rgb'",
        "input": r"unexpected inference input 'picture'",
        "output": r"unexpected inference output 'logits'",
        "model": r"unknown model: 'other'",
        "no picture": r"The image is not an image that can be read",
    }
    refusals = found[protocol]["refusals"]
    assert refusals.keys() == wanted.keys()
    for name, (_, message) in refusals.items():
        assert re.search(wanted[name], message), (name, message)


def test_a_thousand_requests_of_eight_clients_are_all_right(found: dict[str, Any], running: Running) -> None:
    assert found["load"] == {"answered": 1000, "wrong": []}
    page = get(running.metrics, "/metrics")[1]
    counts = {name: figure(page, "nv_inference_count", f"{name}_rgb") for name in ("vino", "ort", "onnx")}
    assert sum(counts.values()) >= 1000
    assert figure(page, "nv_inference_request_failure", "vino") > 0
    runs = {name: figure(page, "nv_inference_exec_count", each) for name, each in (("vino", "vino_rgb"), ("onnx", "onnx_engine"))}
    assert runs["vino"] < counts["vino"], "nothing was batched"


def test_more_requests_than_may_wait_are_refused(found: dict[str, Any]) -> None:
    flood = found["flood"]
    assert flood["other"] == []
    assert flood["right"] >= 16
    assert flood["refused"] > 0
    assert flood["right"] + flood["refused"] == 200


def figure(page: str, name: str, model: str) -> float:
    """A counter of a model on Triton's page of metrics; several of one name, such as failures by reason, are summed."""
    rows = re.findall(rf'^{name}{{[^}}]*model="{model}",[^}}]*}} (\S+)$', page, re.MULTILINE)
    assert rows, (name, model)
    return sum(map(float, rows))


def test_the_command_checks_the_running_triton(where: Environment, folder: Path, running: Running) -> None:
    output = deploy(where, "triton", folder / "repo", "--check", running.http)
    for name in ("vino", "ort", "onnx"):
        assert f"{name}: they are those that segment writes here, bit for bit." in output


def test_the_other_repositories_are_in_tritons_schema(where: Environment, tmp_path: Path) -> None:
    """TensorRT's and the accelerators': parsed, not started."""
    for name in ("standard", "compatible", "rtx"):
        changes: dict[str, Any] = {"compatible": {"options": {"version_compatible": True}}}.get(name, {})
        if name == "rtx":
            changes = {"backend": "tensorrt-rtx", "builder_version": "tensorrt-rtx 1.7.0", "gpu": "compute capability 8.6"}
        plan = write_tensorrt(tmp_path / f"{name}.plan", **changes)
        assert run(tmp_path / name, plan, "--instances", "2", "--threads", "2", "--device", "1").exit_code == 0
    model = write_model(tmp_path / "a.onnx")
    for accelerator in ("tensorrt", "openvino", "none"):
        more = ["--fp16"] if accelerator == "tensorrt" else []
        assert run(tmp_path / accelerator, model, "--accelerator", accelerator, *more).exit_code == 0
    script = (
        "import sys; from pathlib import Path; from triton_clients import parsed; print(*[parsed(Path(each)) for each in sys.argv[1:]])"
    )
    repositories = [tmp_path / name for name in ("standard", "compatible", "rtx", "tensorrt", "openvino", "none")]
    variables = where.variables()
    variables["PYTHONPATH"] += f":{ROOT / 'tests' / 'services'}"
    done = subprocess.run([where.python, "-c", script, *repositories], capture_output=True, text=True, check=False, env=variables)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("_engine'") == 5
