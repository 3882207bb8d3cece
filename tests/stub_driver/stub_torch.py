"""PyTorch on the CPU as an engine over the stub: its work runs when the stream comes to it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from gpu_engines import Batch
from gpu_kinds import ONE, Kind
from standin_network import standin_info
from stub import StubDriver
from stub_lab import Told, bytes_at

from rtformer_deploy.backends.torch.lanes import TorchEngine, network_info
from rtformer_deploy.lanes.opening import open_runner
from rtformer_deploy.nvidia.driver import gpu_at
from rtformer_deploy.runtime.frame_runner import FrameRunner
from rtformer_deploy.types import Head, PrecisionName


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

    def __init__(self, driver: StubDriver, size: tuple[int, int]) -> None:
        self._driver, self._size = driver, size

    def open(
        self, precision: PrecisionName, batch: Batch = ONE, head: Head = "lowres", *, lanes: int = 1, graphs: bool = True
    ) -> FrameRunner:
        torch.manual_seed(0)
        layers = [torch.nn.Conv2d(3, 8, 3, 4, 1), torch.nn.ReLU(), torch.nn.Conv2d(8, 5, 3, 2, 1)]
        network = torch.nn.Sequential(*layers).eval().to(torch.float16 if precision == "fp16" else torch.float32)
        info = network_info(network, standin_info(self._size, 5).spec, batch, "the stub")
        return open_runner(lambda: TorchEngine(network, info, lambda: HostMemory(self._driver)), gpu_at(0), lanes, graphs=graphs)
