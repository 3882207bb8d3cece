"""A real Triton in a process of its own, with a model "tiny" whose labels are 0 everywhere: the oracle for protocol and errors."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from served import wait_until

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


@contextmanager
def real_triton(root: Path, folder: Path) -> Iterator[tuple[str, str]]:
    """The addresses of Triton's HTTP endpoint and of its metrics, until the block ends. Skips by name without its environment."""
    environment = Path(os.environ.get("RTFORMER_DEPLOY_TRITON", root / ".venv-triton"))
    packages = next(iter((environment / "lib").glob("python3.*/site-packages")), None)
    if packages is None or not (packages / "pytriton").is_dir():
        pytest.skip("needs a real Triton: make test-services")
    parts = packages / "pytriton" / "tritonserver"
    version = packages.parent.name.removeprefix("python")
    shutil.copytree(parts / "backends", folder / "backends")
    shutil.copy(parts / "python_backend_stubs" / version / "triton_python_backend_stub", folder / "backends" / "python")
    model = folder / "models" / "tiny"
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").write_text(CONFIG)
    (model / "1" / "model.py").write_text(MODEL)
    http, grpc, metrics = free_ports(3)
    command = [str(parts / "bin" / "tritonserver"), f"--model-repository={folder / 'models'}", f"--backend-directory={folder / 'backends'}"]
    for name, port in (("http", http), ("grpc", grpc), ("metrics", metrics)):
        command += [f"--{name}-address", "127.0.0.1", f"--{name}-port", str(port)]
    libraries = [str(packages / "nvidia_pytriton.libs"), str(sysconfig.get_config_var("LIBDIR"))]
    path = os.pathsep.join([str(environment / "bin"), os.environ.get("PATH", "")])  # the model runs in the Python that is first there
    variables = os.environ | {"LD_LIBRARY_PATH": os.pathsep.join(libraries), "PYTHONPATH": str(packages), "PATH": path}
    with open(folder / "log.txt", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=variables)
    try:
        wait_until(lambda: process.poll() is not None or ready(http), 60)
        assert process.poll() is None, (folder / "log.txt").read_text()[-3000:]
        yield f"127.0.0.1:{http}", f"127.0.0.1:{metrics}"
    finally:
        process.terminate()
        process.wait(30)


def ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/v2/health/ready", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in taken]
    for each in taken:
        each.close()
    return ports
