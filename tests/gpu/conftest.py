"""Which TensorRTs the GPU tests run with."""

from __future__ import annotations

import functools

import pytest

from rtformer_deploy.nvidia.driver import gpus
from rtformer_deploy.types import Backend

MODULES = {"tensorrt-rtx": "tensorrt_rtx", "tensorrt": "tensorrt"}


@pytest.fixture(params=list(MODULES))
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each TensorRT that is installed."""
    name: Backend = request.param
    pytest.importorskip(MODULES[name], reason=f"needs {MODULES[name]}", exc_type=ImportError)
    pytest.importorskip("cuda.core", reason="needs cuda-core with its bindings", exc_type=ImportError)
    if name == "tensorrt-rtx":
        skip_if_rtx_refuses()
    return name


@functools.cache
def rtx_refusal() -> str | None:
    """TensorRT-RTX's own words about the first GPU, if it is none that NVIDIA lists for it and if it refuses it."""
    from rtformer_deploy.backends.tensorrt.rtx_trial import is_listed, refusal

    return refusal(gpus()[0]) if gpus() and not is_listed(gpus()[0]) else None


def skip_if_rtx_refuses() -> None:
    """Skips a test, naming the GPU and the reason. A GPU that NVIDIA lists is never skipped: there a refusal is a failure."""
    if (reason := rtx_refusal()) is not None:
        pytest.skip(f"TensorRT-RTX refuses {gpus()[0]}: {reason}")


@pytest.fixture
def rtx_runs_here() -> None:
    """For tests of TensorRT-RTX alone."""
    pytest.importorskip("tensorrt_rtx", reason="needs tensorrt_rtx", exc_type=ImportError)
    skip_if_rtx_refuses()
