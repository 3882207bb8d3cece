"""What every runner must do (tests/contract/test_runner.py), done by TensorRT's backends: a fake TensorRT over real cuda.core."""

from __future__ import annotations

import pytest
from contract.test_runner import *  # noqa: F403  # its tests, with this module's fixtures
from contract.test_runner import Bounds, MakeEngine
from helpers import Batch, tiny_model, tiny_spec
from tensorrt_lab import TensorRTLab

from rtformer_deploy.backends import BACKENDS
from rtformer_deploy.types import Engine, Head


@pytest.fixture(params=[name for name, row in BACKENDS.items() if row.folder == "tensorrt"])  # type: ignore[no-redef]
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture  # type: ignore[no-redef]
def make_engine(backend: str, machine: TensorRTLab) -> MakeEngine:
    def make(batch: Batch, bounds: Bounds, head: Head) -> Engine:
        fixed = bounds if batch == "batch" else (batch, batch, batch)
        return machine.engine_of(BACKENDS[backend].name, tiny_model("batch", head), tiny_spec(batch, head), fixed)

    return make
