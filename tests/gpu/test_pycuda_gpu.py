"""PyCUDA's arrays and streams on a real GPU: taken as they are in the primary context, refused with a way out in another one."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from gpu_kinds import Kind, in_another_process

from rtformer_deploy.nvidia.driver import gpus, why_none

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not gpus(), reason=f"needs an NVIDIA GPU: {why_none()}")]

PRIMARY = """
import sys
import numpy as np
import pycuda.autoprimaryctx
import pycuda.driver
import pycuda.gpuarray
from gpu_kinds import kind_named
rng = np.random.default_rng(0)
with kind_named(sys.argv[1]).reopen(sys.argv[2], lanes=2) as runner:
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
import numpy as np
import pycuda.autoinit
import pycuda.driver
import pycuda.gpuarray
from gpu_kinds import kind_named
from rtformer_deploy.errors import UsageError
frame = np.random.default_rng(0).integers(0, 256, (256, 512, 3), np.uint8)
with kind_named(sys.argv[1]).reopen(sys.argv[2], lanes=1) as runner:
    array = pycuda.gpuarray.to_gpu(frame)
    for keywords in ({}, {"stream": pycuda.driver.Stream()}):
        try:
            runner.submit([array], **keywords)
        except UsageError as error:
            print(error)
    runner.run([frame])
np.testing.assert_array_equal(array.get(), frame)  # the caller's own context is current again
"""


@pytest.fixture(autouse=True)
def pycuda_is_here() -> None:
    """Each test runs PyCUDA in a process of its own: it makes its context when it is imported."""
    if importlib.util.find_spec("pycuda") is None:
        pytest.skip("needs the extra pycuda")


def test_arrays_and_streams_of_the_primary_context_are_taken_as_they_are(kind: Kind, tmp_path: Path) -> None:
    assert in_another_process(PRIMARY, kind, tmp_path).endswith("equal\n")


def test_pycudas_own_context_is_refused_with_the_way_out_and_stays_as_it_was(kind: Kind, tmp_path: Path) -> None:
    assert in_another_process(OTHER, kind, tmp_path).count("import pycuda.autoprimaryctx instead of pycuda.autoinit") == 2
