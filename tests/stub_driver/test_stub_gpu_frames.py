"""What tests/gpu asks of every engine behind lanes, over the stub: the stand-in's launches run here, and PyTorch's work in its place."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import stub
from gpu_callers import CudaCoreCaller
from gpu_frames import *  # noqa: F403  # its tests, with this module's fixtures
from gpu_frames import Case, Extent, broken
from gpu_kinds import Kind, StandinKind
from smooth_frames import frames
from stub import StubDriver
from stub_torch import StubTorchKind

SIZE = (32, 64)


@pytest.fixture(autouse=True)
def over_the_stub(driver: StubDriver, gpu: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Kernels are built for the host, and waits let the GPU go on."""
    monkeypatch.setattr("rtformer_deploy.lanes.kernels.compile_kernel_file", stub.compile_kernel_file)
    monkeypatch.setattr("standin_engine.compile_kernel_file", stub.compile_kernel_file)
    driver.mode("stepping")
    yield
    gc.collect()


def made(name: str, driver: StubDriver) -> Kind:
    return StandinKind(SIZE) if name == "standin" else StubTorchKind(driver, SIZE)


@pytest.fixture(params=["standin", "torch"])
def kind(request: pytest.FixtureRequest, driver: StubDriver) -> Kind:
    return made(request.param, driver)


@pytest.fixture(params=[(name, precision) for name in ("standin", "torch") for precision in ("fp32", "fp16")], ids="-".join)
def case(request: pytest.FixtureRequest, driver: StubDriver) -> Case:
    name, precision = request.param
    return made(name, driver), precision


@pytest.fixture
def extent() -> Extent:
    return Extent((SIZE, (25, 40), (13, 17)), frames=60, pool=6, warmup=20, grows=2**16)


@pytest.fixture
def caller(cuda: Any) -> CudaCoreCaller:
    return CudaCoreCaller(cuda, lambda stream: None)  # here nothing runs before somebody waits


@pytest.fixture
def break_lanes(driver: StubDriver) -> Iterator[Callable[[Kind, Path], str]]:
    def run(kind: Kind, folder: Path) -> str:
        return broken(kind.open("fp16", lanes=4), frames(SIZE)[0], lambda: driver.break_context(700), busy_s=0.05)

    yield run
    driver.reset()
