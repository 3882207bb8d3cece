"""Which engines the GPU tests run with, and how much of each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gpu_callers import Caller, CudaCoreCaller, CupyCaller, TorchCaller, spinning
from gpu_frames import MIB, Case, Extent
from gpu_kinds import KINDS, MODULES, Kind, PlanKind, in_another_process, kind_named, skip_if_rtx_refuses

from rtformer_deploy.types import Backend


@pytest.fixture(params=list(MODULES))
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each TensorRT that is installed."""
    name: Backend = request.param
    kind = kind_named(name)
    assert isinstance(kind, PlanKind)
    kind.need()
    return name


@pytest.fixture
def rtx_runs_here() -> None:
    """For tests of TensorRT-RTX alone."""
    pytest.importorskip("tensorrt_rtx", reason="needs tensorrt_rtx", exc_type=ImportError)
    skip_if_rtx_refuses()


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each engine that runs behind lanes here."""
    made: Kind = request.param
    made.need()
    return made


@pytest.fixture(params=[(kind, precision) for kind in KINDS for precision in kind.precisions], ids=lambda case: f"{case[0].name}-{case[1]}")
def case(request: pytest.FixtureRequest) -> Case:
    """Each of them in each of its precisions."""
    made: Case = request.param
    made[0].need()
    return made


@pytest.fixture
def extent() -> Extent:
    return Extent(((256, 512), (200, 333), (512, 1024), (97, 131)), frames=10_000, pool=64, warmup=100, grows=16 * MIB)


@pytest.fixture
def cuda() -> Any:
    """The module cuda.core."""
    return pytest.importorskip("cuda.core", reason="needs cuda-core with its bindings", exc_type=ImportError)


@pytest.fixture(params=["cuda.core", "torch", "cupy"])
def caller(request: pytest.FixtureRequest, cuda: Any) -> Caller:
    """Each library that has frames on the GPU."""
    delay = spinning(cuda)
    if request.param == "cuda.core":
        return CudaCoreCaller(cuda, delay)
    return TorchCaller(delay) if request.param == "torch" else CupyCaller(delay)


@pytest.fixture
def break_lanes() -> Callable[[Kind, Path], str]:
    """Breaks lanes in a process of their own, since a broken context cannot be repaired; gives what they said."""

    def run(kind: Kind, folder: Path) -> str:
        return in_another_process("import runpy; runpy.run_module('gpu_break', run_name='__main__')", kind, folder, timeout_s=180)

    return run
