"""What tests/gpu asks of every engine behind lanes, over the stub: the stand-in's launches run here, and PyTorch's work in its place."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import standin_engine
import stub
import torch
from gpu_callers import CudaCoreCaller
from gpu_engines import Batch
from gpu_frames import *  # noqa: F403  # its tests, with this module's fixtures
from gpu_frames import Case, Extent, broken
from gpu_kinds import ONE, Kind, StandinKind
from smooth_frames import frames
from stub import StubDriver
from stub_lab import Told, bytes_at

from rtformer_deploy.backends.torch.lanes import TorchEngine, network_info
from rtformer_deploy.errors import EngineError
from rtformer_deploy.lanes.opening import open_runner
from rtformer_deploy.nvidia.driver import gpu_at
from rtformer_deploy.runtime.frame_runner import FrameRunner
from rtformer_deploy.types import Head, PrecisionName

SIZE = (32, 64)


class HostMemory:
    """Implements `StreamMemory` in the stub's memory, with PyTorch's work as a callback in the stream or in the graph."""

    def __init__(self, driver: StubDriver) -> None:
        self._driver = driver
        self._kept: list[Told] = []  # graphs hold their callbacks

    def tensor(self, address: int, shape: tuple[int, ...], dtype: str) -> torch.Tensor:
        kind = np.dtype(dtype)
        return torch.from_numpy(bytes_at(address, int(np.prod(shape)) * kind.itemsize).view(kind).reshape(shape))

    def enqueue(self, stream: int, work: Callable[[], None]) -> None:
        self._kept.append(Told(work))
        assert self._driver.enqueue_host(stream, self._kept[-1].callback) == 0


class StubTorchKind(Kind):
    """A small network of PyTorch on the CPU."""

    name = "torch"

    def __init__(self, driver: StubDriver) -> None:
        self._driver = driver

    def open(self, precision: PrecisionName, batch: Batch = ONE, head: Head = "lowres", *, lanes: int = 1, graphs: bool = True) -> FrameRunner:
        torch.manual_seed(0)
        layers = [torch.nn.Conv2d(3, 8, 3, 4, 1), torch.nn.ReLU(), torch.nn.Conv2d(8, 5, 3, 2, 1)]
        network = torch.nn.Sequential(*layers).eval().to(torch.float16 if precision == "fp16" else torch.float32)
        spec = standin_engine_spec(5)
        info = network_info(network, spec, batch, "the stub")
        return open_runner(lambda: TorchEngine(network, info, lambda: HostMemory(self._driver)), gpu_at(0), lanes, graphs=graphs)


def standin_engine_spec(classes: int) -> Any:
    from standin_network import standin_info

    return standin_info(SIZE, classes).spec


@pytest.fixture(autouse=True)
def over_the_stub(driver: StubDriver, gpu: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Kernels are built for the host, and waits let the GPU go on."""
    monkeypatch.setattr("rtformer_deploy.lanes.kernels.compile_kernel_file", stub.compile_kernel_file)
    monkeypatch.setattr("standin_engine.compile_kernel_file", stub.compile_kernel_file)
    driver.mode("stepping")
    yield
    gc.collect()


def made(name: str, driver: StubDriver) -> Kind:
    return StandinKind(SIZE) if name == "standin" else StubTorchKind(driver)


@pytest.fixture(params=["standin", "torch"])
def kind(request: pytest.FixtureRequest, driver: StubDriver) -> Kind:
    return made(request.param, driver)


@pytest.fixture(params=[(name, precision) for name in ("standin", "torch") for precision in ("fp32", "fp16")], ids="-".join)
def case(request: pytest.FixtureRequest, driver: StubDriver) -> Case:
    name, precision = request.param
    return made(name, driver), precision


@pytest.fixture
def extent() -> Extent:
    return Extent((SIZE, (25, 40), (13, 17)), frames=60, pool=6, warmup=20)


@pytest.fixture
def caller(cuda: Any) -> CudaCoreCaller:
    return CudaCoreCaller(cuda, lambda stream: None)  # here nothing runs before somebody waits


@pytest.fixture
def break_lanes(driver: StubDriver) -> Iterator[Callable[[Kind, Path], str]]:
    def run(kind: Kind, folder: Path) -> str:
        return broken(kind.open("fp16", lanes=4), frames(SIZE)[0], lambda: driver.break_context(700), busy_s=0.05)

    yield run
    driver.reset()
