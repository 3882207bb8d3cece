"""Which TensorRTs the GPU tests run with."""

from __future__ import annotations

import pytest

from rtformer_deploy.types import Backend

MODULES = {"tensorrt-rtx": "tensorrt_rtx", "tensorrt": "tensorrt"}


@pytest.fixture(params=list(MODULES))
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each TensorRT that is installed."""
    name: Backend = request.param
    pytest.importorskip(MODULES[name], reason=f"needs {MODULES[name]}", exc_type=ImportError)
    pytest.importorskip("cuda.core", reason="needs cuda-core with its bindings", exc_type=ImportError)
    return name
