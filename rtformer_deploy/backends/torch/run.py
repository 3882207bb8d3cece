"""The PyTorch network as a runner, for evaluate, verify and benchmarks: the reference for engines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray

from ...errors import EngineError, ModelError, first_line
from ...runtime.cpu_session import CpuSession
from ...runtime.frame_runner import FrameRunner
from ...runtime.session import WorkerSession
from ...types import ModelSpec

_COMPUTE = (torch.nn.modules.conv._ConvNd, torch.nn.Linear)
_PRECISIONS = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
#: "freezing" folds normalisation into the weights and lays these out for the machine; it needs a network that does not change.
_COMPILE_OPTIONS: dict[str, str | int | bool | Callable[..., object]] = {"freezing": True}


def open_network(
    network: torch.nn.Module,
    spec: ModelSpec,
    *,
    batch: int = 1,
    channels_last: bool = False,
    device: str = "cpu",
    threads: int | None = None,
    lanes: int = 1,
    compiled: bool = False,
) -> FrameRunner:
    """A network in evaluation mode to a FrameRunner; the network is moved to `device` and to its memory layout.

    The network maps normalised RGB (N, 3, H, W) to what `spec.output` says: one tensor of logits or labels. `batch` is the largest
    batch; the size is the spec's. `threads` sets PyTorch's threads for the whole process. `compiled`: torch.compile compiles it here, for
    exactly this batch, which takes a minute or more. Raises ModelError if the network is in training mode, EngineError if it cannot be
    compiled.
    """
    if network.training:
        raise ModelError("The network is in training mode, where it gives other logits.", "Call network.eval() first.")
    if threads is not None:
        torch.set_num_threads(threads)
    engines = [TorchSession(network, spec, batch, channels_last, device) for _ in range(lanes)]
    least = batch if compiled else 1  # another batch would be compiled when it comes
    if compiled:
        for engine in engines:
            engine.compile(batch)
    return FrameRunner([CpuSession(engine, spec, least, threads) for engine in engines], spec, (least, batch, batch), threads)


def layer_precisions(network: torch.nn.Module) -> dict[str, int]:
    """A network -> the count of its convolutions and linear layers by precision, as `EngineInfo` counts those of an engine."""
    weights = [module.weight for module in network.modules() if isinstance(module, _COMPUTE)]
    return dict(Counter(_PRECISIONS.get(weight.dtype, str(weight.dtype)) for weight in weights))


class TorchSession(WorkerSession):
    """An EngineSession around a module; PyTorch allocates a new output for each run."""

    _network: Callable[[torch.Tensor], object]

    def __init__(self, network: torch.nn.Module, spec: ModelSpec, batch: int, channels_last: bool, device: str) -> None:
        super().__init__((batch, 3, *spec.size), "torch")
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        self._device = torch.device(device)
        self._network = network.to(self._device).to(memory_format=self._layout)  # type: ignore[call-overload]

    def compile(self, batch: int) -> None:
        """Compiles the network with torch.compile for this batch, and runs it once. Raises EngineError with PyTorch's reason."""
        self._network = torch.compile(self._network, dynamic=False, options=_COMPILE_OPTIONS)
        self.start(batch)
        try:
            self.wait()
        except Exception as error:  # PyTorch's compilers share no base for their exceptions
            what = f"torch.compile cannot compile the network: {first_line(error)}"
            raise EngineError(what, "It needs a C++ compiler (Debian: apt-get install g++) and Python's headers (python3-dev).") from error

    @torch.inference_mode()
    def execute(self, batch: int) -> NDArray[Any]:
        images = torch.from_numpy(self.input[:batch]).to(self._device).contiguous(memory_format=self._layout)
        output = self._network(images)
        if not isinstance(output, torch.Tensor):
            raise ModelError(f"The network gives {type(output).__name__}; a runner needs one tensor of logits or labels.")
        array: NDArray[Any] = output.contiguous().cpu().numpy()
        return array
