"""A real Triton in a process of its own, from the environment that make_triton.py makes; tests are skipped by name without it.

    python real_triton.py REPOSITORY

starts one by hand, on free ports of this machine, until Ctrl-C.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
MISSING = "missing.txt"

CONFIG = """
backend: "python"
max_batch_size: 0
input [{ name: "image" data_type: TYPE_STRING dims: [ -1 ] }]
output [{ name: "labels" data_type: TYPE_UINT8 dims: [ -1, -1, -1 ] }]
"""
MODEL = """
import io
import numpy as np
import triton_python_backend_utils as triton
from PIL import Image


class TritonPythonModel:
    def execute(self, requests):
        return [self._answer(triton.get_input_tensor_by_name(request, "image").as_numpy()) for request in requests]

    def _answer(self, pictures):
        sizes = [Image.open(io.BytesIO(bytes(picture))).size for picture in pictures.ravel()]
        labels = np.stack([np.zeros((height, width), np.uint8) for width, height in sizes])
        return triton.InferenceResponse([triton.Tensor("labels", labels)])
"""


@dataclass(frozen=True, slots=True)
class Environment:
    """Triton's environment: its folder, its packages, and the Python that models run in."""

    folder: Path
    packages: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def variables(self) -> dict[str, str]:
        """The variables with which its Python runs this checkout."""
        path = os.pathsep.join([str(self.folder / "bin"), os.environ.get("PATH", "")])  # models run in the Python that is first there
        return os.environ | {"PYTHONPATH": os.pathsep.join([str(self.packages), str(ROOT)]), "PATH": path, "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True, slots=True)
class Running:
    """The addresses of a Triton that runs, and its log."""

    http: str
    grpc: str
    metrics: str
    log: Path


def environment() -> Environment:
    """The environment of Triton. Skips by name without it."""
    folder = Path(os.environ.get("RTFORMER_DEPLOY_TRITON", ROOT / ".venv-triton")).resolve()
    packages = next(iter((folder / "lib").glob("python3.*/site-packages")), None)
    if packages is None or not (packages / "pytriton").is_dir():
        why = folder / MISSING
        pytest.skip(f"needs a real Triton: {why.read_text().strip() if why.is_file() else 'make test-services'}")
    return Environment(folder, packages)


@contextmanager
def started(where: Environment, repository: Path, folder: Path, patience_s: float = 120.0) -> Iterator[Running]:
    """A Triton with a repository, until the block ends; `folder` is for its backends and its log."""
    parts = where.packages / "pytriton" / "tritonserver"
    version = where.packages.parent.name.removeprefix("python")
    shutil.copytree(parts / "backends", folder / "backends")
    shutil.copy(parts / "python_backend_stubs" / version / "triton_python_backend_stub", folder / "backends" / "python")
    http, grpc, metrics = (f"127.0.0.1:{port}" for port in free_ports(3))
    command = [str(parts / "bin" / "tritonserver"), f"--model-repository={repository}", f"--backend-directory={folder / 'backends'}"]
    for name, address in (("http", http), ("grpc", grpc), ("metrics", metrics)):
        host, _, port = address.partition(":")
        command += [f"--{name}-address", host, f"--{name}-port", port]
    libraries = [str(where.packages / "nvidia_pytriton.libs"), str(sysconfig.get_config_var("LIBDIR"))]
    running = Running(http, grpc, metrics, folder / "log.txt")
    with open(running.log, "w") as log:
        variables = where.variables() | {"LD_LIBRARY_PATH": os.pathsep.join(libraries)}
        # Triton's Python ignores PYTHONPATH; models find this checkout because they start in it.
        process = subprocess.Popen(command, stdout=log, stderr=log, env=variables, cwd=ROOT)
    try:
        end = time.monotonic() + patience_s
        while not ready(http):
            assert process.poll() is None, running.log.read_text()[-6000:]
            assert time.monotonic() < end, running.log.read_text()[-6000:]
            time.sleep(0.1)
        yield running
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def real_triton(folder: Path) -> Iterator[tuple[str, str]]:
    """The addresses (HTTP, metrics) of a Triton with a model "tiny", all of whose labels are 0: the oracle for protocol and errors."""
    where = environment()
    model = folder / "models" / "tiny"
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").write_text(CONFIG)
    (model / "1" / "model.py").write_text(MODEL)
    with started(where, folder / "models", folder) as running:
        yield running.http, running.metrics


def get(address: str, path: str) -> tuple[int, str]:
    """An answer's status and text, past any proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{address}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""
    except OSError:
        return 0, ""


def ready(address: str) -> bool:
    return get(address, "/v2/health/ready")[0] == 200


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in taken]
    for each in taken:
        each.close()
    return ports


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, started(environment(), Path(sys.argv[1]).resolve(), Path(folder)) as running:
        print(f"HTTP {running.http}, gRPC {running.grpc}, metrics http://{running.metrics}/metrics", flush=True)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            print("Stopping ...")


if __name__ == "__main__":
    main()
