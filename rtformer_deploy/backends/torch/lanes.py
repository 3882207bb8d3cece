"""The PyTorch network on a GPU behind the lanes that TensorRT's engines run in: a frame's whole way there, in one CUDA graph.

It needs no TensorRT. The lanes capture the graphs, since torch.compile's own hold one output for all lanes and cannot be captured again.
Never run on a GPU so far.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Literal, Protocol

import torch

from ...errors import DeployError, EngineError, ModelError, first_line
from ...lanes.opening import open_runner
from ...lanes.supported import ON_A_CPU, lane_fault
from ...nvidia.driver import gpu_at
from ...runtime.frame_runner import FrameRunner
from ...types import EngineInfo, ModelSpec, PrecisionFound, PrecisionName, TensorSpec
from .run import layer_precisions

#: What torch.compile may do; None runs the network as it is.
CompileMode = Literal["default", "max-autotune-no-cudagraphs"]
_NO_FILE = "0" * 64  # a network has no plan
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "uint8": torch.uint8}
_TYPES_IN_MEMORY = {"float32": "<f4", "float16": "<f2", "uint8": "|u1"}


def open_network_in_lanes(
    network: torch.nn.Module,
    spec: ModelSpec,
    *,
    batch: tuple[int, int, int] = (1, 1, 1),
    half: bool = False,
    mode: CompileMode | None = None,
    device: int = 0,
    lanes: int = 1,
    graphs: bool = True,
) -> FrameRunner:
    """A network in evaluation mode -> a FrameRunner of `lanes` lanes on GPU `device`; the network is moved there, channels-last.

    The network maps normalised RGB (N, 3, H, W) to what `spec.output` says. `batch` is (min, opt, max) as of an engine. `half` runs it in
    FP16. `mode` compiles it with torch.compile, once for each of these batches, which takes minutes; another batch is compiled when it
    comes. Raises ModelError if the network is in training mode, UsageError if there is no such GPU, MissingPackageError without cuda.core
    or NVRTC, EngineError if this PyTorch has no CUDA or cannot run or compile the network.
    """
    if network.training:
        raise ModelError("The network is in training mode, where it gives other logits.", "Call network.eval() first.")
    if (fault := lane_fault(spec)) is not None:  # before minutes of compiling
        raise EngineError(fault, ON_A_CPU)
    gpu = gpu_at(device)
    if not torch.cuda.is_available():
        raise EngineError(f"This PyTorch ({torch.__version__}) has no CUDA.", "Install one that has: https://pytorch.org/get-started")

    def make() -> TorchEngine:
        network.to(torch.device("cuda", device), torch.float16 if half else torch.float32, memory_format=torch.channels_last)  # type: ignore[call-overload]
        engine = TorchEngine(network, network_info(network, spec, batch, str(gpu)), lambda: CudaMemory(device))
        if mode is not None:
            engine.compile(mode)
            torch.cuda.empty_cache()  # what trying kernels took
        torch.cuda.synchronize(device)  # the lanes' streams do not wait for the weights on their way
        return engine

    return open_runner(make, gpu, lanes, graphs=graphs)


def network_info(network: torch.nn.Module, spec: ModelSpec, batch: tuple[int, int, int], gpu: str) -> EngineInfo:
    """A network, described as an engine is; the precision is that of its weights."""
    count = batch[0] if batch[0] == batch[2] else "batch"
    source, target = (TensorSpec(part.name, (count, *part.shape[1:]), part.dtype) for part in (spec.input, spec.output))
    layers = layer_precisions(network)
    asked: PrecisionName = "fp16" if "fp16" in layers else "fp32"
    return EngineInfo(
        spec=dataclasses.replace(spec, input=source, output=target),
        backend="torch",
        inputs=(source,),
        outputs=(target,),
        batch=batch,
        precision=PrecisionFound(asked, "verified", layers, "the types of the network's weights"),
        builder_version=f"torch {torch.__version__}",
        gpu=gpu,
        plan_sha256=_NO_FILE,
        model_sha256=spec.sha256 or _NO_FILE,
    )


class StreamMemory(Protocol):
    """How PyTorch works in a lane's memory and on its stream."""

    def tensor(self, address: int, shape: tuple[int, ...], dtype: str) -> torch.Tensor:
        """The memory at a device address as a tensor that does not own it."""
        ...

    def enqueue(self, stream: int, work: Callable[[], None]) -> None:
        """Enqueues what `work` computes with PyTorch on the stream with this handle."""
        ...


class CudaMemory:
    """Implements `StreamMemory` on a GPU. What `enqueue` allocates comes from memory of this object's own.

    Every launch of a graph writes to the memory that it was captured with, so that memory must stay its own. torch.cuda.graph does it in
    the same way.
    """

    def __init__(self, device: int) -> None:
        self._device = torch.device("cuda", device)
        self._pool = torch.cuda.MemPool()
        self._streams: dict[int, torch.cuda.ExternalStream] = {}

    def tensor(self, address: int, shape: tuple[int, ...], dtype: str) -> torch.Tensor:
        return torch.as_tensor(_Shown(address, shape, dtype), device=self._device)

    def enqueue(self, stream: int, work: Callable[[], None]) -> None:
        if stream not in self._streams:
            self._streams[stream] = torch.cuda.ExternalStream(stream, self._device)
        with torch.cuda.stream(self._streams[stream]), torch.cuda.use_mem_pool(self._pool, self._device):
            work()


class _Shown:
    """Device memory that PyTorch takes as it is."""

    def __init__(self, address: int, shape: tuple[int, ...], dtype: str) -> None:
        self.__cuda_array_interface__: dict[str, Any] = {
            "shape": shape,
            "typestr": _TYPES_IN_MEMORY[dtype],
            "data": (address, False),
            "version": 2,  # version 3 could make PyTorch wait for a stream; a lane's memory is ordered by the lane's own
            "strides": None,
        }


class TorchEngine:
    """Implements `lanes.engine.CudaEngine` around a module that is where it runs. `memory` makes a `StreamMemory` for each context."""

    def __init__(self, network: torch.nn.Module, info: EngineInfo, memory: Callable[[], StreamMemory]) -> None:
        self.info = info
        self._memory = memory
        self._network: Callable[[torch.Tensor], object] = network
        parameter = next(network.parameters(), torch.empty(0))
        self._dtype, self._device = parameter.dtype, parameter.device

    def compile(self, mode: CompileMode) -> None:
        """Compiles the network for each of the engine's batches and runs it once, before there are lanes: trying kernels waits for the
        whole GPU, which no lane may do while another one captures. Raises EngineError with PyTorch's reason."""
        self._network = torch.compile(self._network, mode=mode, dynamic=False)
        with _named("torch.compile cannot compile the network"):
            for batch in sorted(set(self.info.batch)):
                source, target = (self._zeros(batch, spec) for spec in (self.info.inputs[0], self.info.outputs[0]))
                self.run(source, target)

    def create_context(self) -> TorchContext:
        return TorchContext(self, self._memory())

    @torch.inference_mode()
    def run(self, source: torch.Tensor, target: torch.Tensor) -> None:
        """The engine's input -> its output, on PyTorch's current stream. Raises ModelError if the network gives something else."""
        output = self._network(source.to(self._dtype, memory_format=torch.channels_last))
        if not isinstance(output, torch.Tensor) or output.shape != target.shape:
            given = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
            raise ModelError(f"The network gives {given}; its description says {tuple(target.shape)}.")
        target.copy_(output)

    def _zeros(self, batch: int, spec: TensorSpec) -> torch.Tensor:
        return torch.zeros((batch, *map(int, spec.shape[1:])), dtype=_DTYPES[spec.dtype], device=self._device)


class TorchContext:
    """Implements `lanes.engine.ExecutionContext`."""

    def __init__(self, engine: TorchEngine, memory: StreamMemory) -> None:
        self._engine, self._memory = engine, memory
        self._batch = 0
        self._at: dict[str, torch.Tensor] = {}

    def set_batch(self, batch: int) -> None:
        self._batch = batch
        self._at.clear()

    def bind(self, name: str, address: int) -> None:
        info = self._engine.info
        (spec,) = [spec for spec in (*info.inputs, *info.outputs) if spec.name == name]
        with _named("PyTorch does not take the memory for " + name):
            self._at[name] = self._memory.tensor(address, (self._batch, *map(int, spec.shape[1:])), spec.dtype)

    def execute(self, stream: int) -> None:
        info = self._engine.info
        source, target = self._at[info.inputs[0].name], self._at[info.outputs[0].name]
        with _named("PyTorch cannot run the network"):
            self._memory.enqueue(stream, lambda: self._engine.run(source, target))


@contextlib.contextmanager
def _named(what: str) -> Iterator[None]:
    """Errors of PyTorch and its compilers, which share no base, as EngineError."""
    try:
        yield
    except DeployError:
        raise
    except Exception as error:
        raise EngineError(f"{what}: {first_line(error)}") from error
