"""The kernels on the host: the very sources of plugins/, compiled by the C++ compiler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from emulated_cuda import COMPILER, Cuda
from kernel_calls import HostMemory, KernelCalls

from rtformer_deploy.types import ModelSpec


@pytest.fixture(scope="session")
def on_host() -> Callable[..., KernelCalls]:
    """spec, input type, logits' type -> the kernels of such a model under the emulation."""
    if COMPILER is None:
        pytest.skip("needs g++ or clang++")

    def calls(spec: ModelSpec, *dtypes: Any) -> KernelCalls:
        cuda = Cuda()
        return KernelCalls(cuda, cuda.gpu, HostMemory(), spec, *dtypes)

    return calls
