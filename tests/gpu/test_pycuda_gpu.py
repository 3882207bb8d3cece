"""PyCUDA's arrays and streams on a real GPU: taken as they are in the primary context, refused with a way out in another one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from gpu_engines import built

from rtformer_deploy.formats.engine_file import save_engine
from rtformer_deploy.nvidia.driver import gpus, why_none
from rtformer_deploy.types import Backend

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not gpus(), reason=f"needs an NVIDIA GPU: {why_none()}")]

PRIMARY = """
import sys
from pathlib import Path
import numpy as np
import pycuda.autoprimaryctx
import pycuda.driver
import pycuda.gpuarray
from rtformer_deploy import load_engine, open_engine
rng = np.random.default_rng(0)
with open_engine(load_engine(Path(sys.argv[1])), lanes=2) as runner:
    stream = pycuda.driver.Stream()
    before = pycuda.driver.Context.get_current()
    for size in [(256, 512), (200, 333)] * 4:
        frame = rng.integers(0, 256, (*size, 3), np.uint8)
        array = pycuda.gpuarray.to_gpu_async(np.zeros_like(frame), stream=stream)
        array.set_async(frame, stream=stream)
        given = runner.result(runner.submit([array], stream=stream))[0]
        np.testing.assert_array_equal(given, runner.run([frame])[0])
        on_gpu = runner.result(runner.submit([array], stream=stream, on_device=True))[0]
        target = np.empty(size, np.uint8)
        pycuda.driver.memcpy_dtoh(target, on_gpu.__cuda_array_interface__["data"][0])
        np.testing.assert_array_equal(target, given)
    assert pycuda.driver.Context.get_current() == before
print("equal")
"""

OTHER = """
import sys
from pathlib import Path
import numpy as np
import pycuda.autoinit
import pycuda.driver
import pycuda.gpuarray
from rtformer_deploy import load_engine, open_engine
from rtformer_deploy.errors import UsageError
frame = np.random.default_rng(0).integers(0, 256, (256, 512, 3), np.uint8)
with open_engine(load_engine(Path(sys.argv[1]))) as runner:
    array = pycuda.gpuarray.to_gpu(frame)
    for keywords in ({}, {"stream": pycuda.driver.Stream()}):
        try:
            runner.submit([array], **keywords)
        except UsageError as error:
            print(error)
    runner.run([frame])
np.testing.assert_array_equal(array.get(), frame)  # the caller's own context is current again
"""


def run_python(code: str, plan: Path) -> str:
    """In a process of its own: PyCUDA makes its context when it is imported."""
    done = subprocess.run([sys.executable, "-c", code, str(plan)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def plan(backend: Backend, tmp_path: Path) -> Path:
    pytest.importorskip("pycuda", reason="needs the extra pycuda")
    path = tmp_path / "engine.plan"
    save_engine(built(backend, "fp16"), path)
    return path


def test_arrays_and_streams_of_the_primary_context_are_taken_as_they_are(plan: Path) -> None:
    assert run_python(PRIMARY, plan).endswith("equal\n")


def test_pycudas_own_context_is_refused_with_the_way_out_and_stays_as_it_was(plan: Path) -> None:
    assert run_python(OTHER, plan).count("import pycuda.autoprimaryctx instead of pycuda.autoinit") == 2
