"""Programs from elsewhere against our service: two protocol clients and schemathesis, in an environment of their own."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from helpers import frames
from numpy.typing import NDArray
from real_triton import real_triton
from segmenting import segment
from served import Served, jpeg, open_tiny, pixels, served

from rtformer_deploy.commands.segment import plan_jobs
from rtformer_deploy.serve.engine_host import EngineHost
from rtformer_deploy.serve.settings import Limits

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def clients(root: Path) -> Path:
    """The programs of the clients' environment."""
    folder = Path(os.environ.get("RTFORMER_DEPLOY_CLIENTS", root / ".venv-clients")) / "bin"
    if not (folder / "python").exists():
        pytest.skip("needs the environment of the clients: make test-services")
    return folder


@pytest.fixture(scope="module")
def service() -> Iterator[Served]:
    with served(EngineHost("tiny", open_tiny), limits=Limits(transfer_s=5, deadline_s=5)) as running:
        yield running


def hashed(labels: NDArray[np.uint8]) -> list[Any]:
    return [list(labels.shape), hashlib.sha256(labels.tobytes()).hexdigest()]


def tried(clients: Path, root: Path, address: str, paths: Sequence[Path]) -> dict[str, Any]:
    """What both clients get from a server at this address."""
    script = root / "tests" / "services" / "protocol_clients.py"
    command: list[Path | str] = [clients / "python", script, address, "tiny", *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=without_our_path())
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def without_our_path() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def test_clients_from_elsewhere_get_what_segment_writes(clients: Path, service: Served, tmp_path: Path, root: Path) -> None:
    paths = [tmp_path / f"{index}.jpg" for index in range(2)]
    for path, frame in zip(paths, frames((40, 60), (40, 60)), strict=True):
        path.write_bytes(jpeg(frame))
    with open_tiny() as runner:
        jobs = plan_jobs(paths, tmp_path / "out")
        list(segment(runner, jobs, tmp_path / "out"))
    written: NDArray[np.uint8] = np.stack([pixels(job.labels.read_bytes()) for job in jobs])
    found = tried(clients, root, f"127.0.0.1:{service.port}", paths)
    first = hashed(written[:1])

    triton = found["tritonclient"]
    assert [triton[name] for name in ("live", "ready", "model ready", "other ready")] == [True, True, True, False]
    assert triton["extensions"] == ["binary_tensor_data"]
    assert triton["inputs"] == [["image", "BYTES"]]
    assert triton["outputs"] == [["labels", "UINT8"]]
    assert triton["bytes"] == hashed(written)
    assert [triton[name] for name in ("bytes, labels in json", "uint8", "uint8 in json")] == [first] * 3
    assert triton["request id"] == "abc"
    assert triton["asynchronous"] == [hashed(written[:1]), hashed(written[1:])] * 3
    for name, status in (("another model", 404), ("another version", 404), ("another input", 400), ("another output", 400)):
        assert triton[name]["status"] == str(status), triton[name]
    assert "There is no model of that name here." in triton["metadata of another model"]["message"]

    assert [found["open"][name] for name in ("live", "ready", "model ready")] == [None] * 3
    assert (found["open"]["server"], found["open"]["model"]) == ("rtformer-deploy", "tiny")
    assert found["open"]["infer"] == ["7", "tiny", *first]
    assert found["open"]["another model"]["status"] == "404"


def test_schemathesis_finds_no_answer_that_the_document_does_not_have(clients: Path, service: Served, tmp_path: Path) -> None:
    """Generated requests, valid and not: no 5xx but 503 and 504, and every status, type and body is in the OpenAPI document.

    No schema says which bytes are a picture, so that valid requests are refused is not a finding here.
    """
    options = ["--max-examples", "60", "--seed", "14", "--exclude-checks", "positive_data_acceptance"]
    command: list[Path | str] = [clients / "schemathesis", "run", f"{service.url}/openapi.json", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900, cwd=tmp_path, env=without_our_path())
    assert done.returncode == 0, done.stdout[-6000:]
    assert service.client.get("/v2/health/ready").status_code == 200


#: What only our model takes: pictures as UINT8. The same model in Triton's Python backend takes BYTES.
OURS_ALONE = {"uint8", "uint8 in json"}


def test_a_real_triton_answers_the_same_script_alike(clients: Path, service: Served, tmp_path: Path, root: Path) -> None:
    """Triton as the oracle: the same shapes, readiness, metadata and figures, and errors with the same status."""
    paths = [tmp_path / f"{index}.jpg" for index in range(2)]
    for path, frame in zip(paths, frames((40, 60), (40, 60)), strict=True):
        path.write_bytes(jpeg(frame))
    with real_triton(tmp_path / "triton") as (address, metrics):
        wanted = tried(clients, root, address, paths)["tritonclient"]
        triton_figures = figures(httpx.get(f"http://{metrics}/metrics", trust_env=False).text)
    found = tried(clients, root, f"127.0.0.1:{service.port}", paths)["tritonclient"]
    assert {name: form(value) for name, value in found.items() if name not in OURS_ALONE} == {
        name: form(value) for name, value in wanted.items() if name not in OURS_ALONE
    }
    ours = figures(service.client.get("/metrics").text)
    assert {name: kind for name, kind in ours.items() if name.startswith("nv_")} == triton_figures


def form(value: Any) -> Any:
    """What has to be alike: an error's status, the shape of labels (a hash is its model's own), anything else as it is."""
    if isinstance(value, dict):
        return value["status"]
    if isinstance(value, list):
        return [form(each) for each in value]
    return "a hash" if isinstance(value, str) and len(value) == 64 else value


def figures(page: str) -> dict[str, str]:
    """Triton's figures of inference on a page of Prometheus -> their types."""
    return dict(re.findall(r"^# TYPE (nv_inference_\w+) (\w+)", page, re.MULTILINE))
