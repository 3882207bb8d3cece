"""What several tests of builders share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tensorrt_11(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a `tensorrt` package: NVIDIA's 11.4 bindings over the RTX library."""
    folder = tmp_path_factory.mktemp("tensorrt11")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    script = ["bash", str(shared / "trt_api" / "tensorrt11_over_rtx.sh"), str(folder)]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"the TensorRT 11.4 bindings cannot be set up here: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
    return folder
