"""An engine for lanes on any GPU with cuda.core: a small network compiled by NVRTC, with exact outputs, behind TensorRT's own classes.

`StandinEngine` and `StandinContext` stand in for TensorRT's ICudaEngine and IExecutionContext, so the adapter that lanes use is the real
one (`backends/tensorrt/plan.py`). As there, what is refused gives False, and the reason goes to the logger.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from standin_network import CHANNELS, STRIDE

from rtformer_deploy.backends.tensorrt.library import TrtLibrary
from rtformer_deploy.backends.tensorrt.log import MessageLog
from rtformer_deploy.backends.tensorrt.plan import OpenPlan
from rtformer_deploy.lanes.buffers import import_cuda
from rtformer_deploy.lanes.opening import open_runner
from rtformer_deploy.nvidia.driver import gpu_at
from rtformer_deploy.nvidia.nvrtc import compile_kernel_file
from rtformer_deploy.runtime.frame_runner import FrameRunner
from rtformer_deploy.types import EngineInfo

FOLDER = Path(__file__).parent
LAYERS = 2
_THREADS = 256
_SUFFIX = {"float32": "f32", "float16": "f16"}


class ILogger:
    """The base of the logger that `MessageLog` makes."""

    INTERNAL_ERROR, ERROR, WARNING = 1, 2, 3

    def log(self, severity: int, message: str) -> None: ...


class Launch(NamedTuple):
    """One kernel of a run, ready to launch."""

    config: Any
    kernel: Any
    arguments: tuple[Any, ...]


class StandinContext:
    """Stands in for TensorRT's IExecutionContext: a shape, then an address for each tensor, then any number of runs.

    It has device memory of its own for what lies between the layers, freed with it.
    """

    def __init__(self, engine: StandinEngine) -> None:
        self._engine = engine
        self._batch = 0
        self._at: dict[str, int] = {}
        self._launches: list[Launch] = []
        gpu = engine.cuda.Device()
        self._stream = gpu.create_stream()
        self._maps = [gpu.allocate(4 * engine.values(engine.info.batch[2]), stream=self._stream) for _ in range(3)]
        self._stream.sync()

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        info = self._engine.info
        self._launches, self._at, self._batch = [], {}, shape[0]
        if name == info.inputs[0].name and shape[1:] == info.inputs[0].shape[1:] and info.batch[0] <= shape[0] <= info.batch[2]:
            return True
        return self._refuse(f"{name} {shape} is outside the profile {info.batch} of {info.inputs[0].shape}")

    def set_tensor_address(self, name: str, address: int) -> bool:
        info = self._engine.info
        if name not in {info.inputs[0].name, info.outputs[0].name}:
            return self._refuse(f"there is no tensor {name}")
        self._launches = []
        self._at[name] = address
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        info = self._engine.info
        if self._at.keys() != {info.inputs[0].name, info.outputs[0].name}:
            return self._refuse("a run needs a shape, then the address of every tensor")
        if not self._launches:
            self._launches = self._engine.launches(
                self._batch, self._at[info.inputs[0].name], self._at[info.outputs[0].name], [int(map_.handle) for map_ in self._maps]
            )
        stream = self._engine.cuda.Stream.from_handle(stream_handle)
        for launch in self._launches:
            self._engine.cuda.launch(stream, launch.config, launch.kernel, *launch.arguments)
        return True

    def _refuse(self, why: str) -> bool:
        self._engine.logger.log(ILogger.ERROR, why)
        return False


class StandinEngine:
    """Stands in for TensorRT's ICudaEngine. The GPU's primary context is current here and in every call of its contexts."""

    def __init__(self, cuda: Any, info: EngineInfo, logger: Any, layers: int = LAYERS) -> None:
        self.cuda, self.info, self.logger, self.layers = cuda, info, logger, layers
        capability = cuda.Device().compute_capability
        code = compile_kernel_file(cuda, "standin", f"{capability.major}{capability.minor}", folder=FOLDER)
        last = "standin_labels" if info.spec.head == "labels" else f"standin_logits_{_SUFFIX[info.outputs[0].dtype]}"
        names = (f"standin_features_{_SUFFIX[info.inputs[0].dtype]}", "standin_layer", last)
        self._first, self._layer, self._last = map(code.get_kernel, names)
        self._rows, self._columns = (length // STRIDE for length in info.spec.size)

    def create_execution_context(self) -> StandinContext:
        return StandinContext(self)

    def values(self, batch: int) -> int:
        """How many values a layer has for so many images."""
        return batch * CHANNELS * self._rows * self._columns

    def launches(self, batch: int, source: int, target: int, maps: list[int]) -> list[Launch]:
        """The kernels of a run from `source` to `target`, with three maps of whole numbers in between."""
        first, here, there = maps
        grid, values = (np.int32(self._rows), np.int32(self._columns)), self.values(batch)
        made = [self._launch(values, self._first, source, *grid, values, first)]
        before = first
        for number in range(1, self.layers + 1):
            made.append(self._launch(values, self._layer, first, before, np.int32(number), *grid, values, here))
            before, here, there = here, there, here
        classes = len(self.info.spec.classes)
        cells = batch * self._rows * self._columns
        outputs = cells * (STRIDE**2 if self.info.spec.head == "labels" else classes)
        return [*made, self._launch(outputs, self._last, before, np.int32(classes), *grid, outputs, target)]

    def _launch(self, threads: int, kernel: Any, *arguments: Any) -> Launch:
        config = self.cuda.LaunchConfig(grid=(-(-threads // _THREADS),), block=(_THREADS,))
        return Launch(config, kernel, arguments)


def open_standin(info: EngineInfo, layers: int = LAYERS) -> OpenPlan:
    """The stand-in as an open plan: a `CudaEngine`. The GPU's primary context is current."""
    library = TrtLibrary(SimpleNamespace(ILogger=ILogger, __version__="1"), "standin", False)
    log = MessageLog(library.module)
    return OpenPlan(info, library, log, None, StandinEngine(import_cuda(), info, log.logger, layers))


def standin_runner(info: EngineInfo, lanes: int = 1, *, graphs: bool = True, layers: int = LAYERS) -> FrameRunner:
    """The stand-in behind lanes, on the first GPU."""
    make: Callable[[], OpenPlan] = lambda: open_standin(info, layers)  # noqa: E731
    return open_runner(make, gpu_at(0), lanes, graphs=graphs)
