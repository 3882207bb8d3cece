"""The PyTorch network as a runner, for evaluate, verify and benchmarks: the reference for engines."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray

from ...errors import ModelError
from ...runtime.cpu_session import CpuSession
from ...runtime.frame_runner import FrameRunner
from ...runtime.session import WorkerSession
from ...types import ModelSpec


def open_network(
    network: torch.nn.Module,
    spec: ModelSpec,
    *,
    batch: int = 1,
    channels_last: bool = False,
    device: str = "cpu",
    threads: int | None = None,
    lanes: int = 1,
) -> FrameRunner:
    """A network in evaluation mode to a FrameRunner; the network is moved to `device` and to its memory layout.

    The network maps normalised RGB (N, 3, H, W) to what `spec.output` says: one tensor of logits or labels. `batch` is the largest
    batch; the size is the spec's. `threads` sets PyTorch's threads for the whole process. Raises ModelError if the network is in
    training mode.
    """
    if network.training:
        raise ModelError("The network is in training mode, where it gives other logits.", "Call network.eval() first.")
    if threads is not None:
        torch.set_num_threads(threads)
    sessions = [CpuSession(TorchSession(network, spec, batch, channels_last, device), spec, threads=threads) for _ in range(lanes)]
    return FrameRunner(sessions, spec, (1, batch, batch), threads)


class TorchSession(WorkerSession):
    """An EngineSession around a module; PyTorch allocates a new output for each run."""

    def __init__(self, network: torch.nn.Module, spec: ModelSpec, batch: int, channels_last: bool, device: str) -> None:
        super().__init__((batch, 3, *spec.size), "torch")
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        self._device = torch.device(device)
        self._network = network.to(self._device).to(memory_format=self._layout)  # type: ignore[call-overload]

    @torch.inference_mode()
    def execute(self, batch: int) -> NDArray[Any]:
        images = torch.from_numpy(self.input[:batch]).to(self._device).contiguous(memory_format=self._layout)
        output = self._network(images)
        if not isinstance(output, torch.Tensor):
            raise ModelError(f"The network gives {type(output).__name__}; a runner needs one tensor of logits or labels.")
        array: NDArray[Any] = output.contiguous().cpu().numpy()
        return array
