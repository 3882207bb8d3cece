"""A TensorRT over `null`'s GPU, for tests: its engine is a small network in NumPy; with `rtx` it has TensorRT-RTX's runtime settings."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from null import NullGpu
from numpy.typing import NDArray

from rtformer_deploy.types import ModelSpec

CHANNELS = 5
_COMPILED = b"compiled kernels"


class NullTensorRT(NullGpu):
    """The GPU, and what TensorRT says of any plan it is given.

    Every plan is `network`: images (N, 3, H, W) to logits, or to labels. `runs_done` counts the runs that the GPU has finished.
    """

    def __init__(self, spec: ModelSpec | None = None) -> None:
        super().__init__(spec)
        self.network: Callable[[NDArray[np.float32]], NDArray[Any]] = network
        self.runs_done = 0
        self.io = {"input": "FLOAT", "logits": "FLOAT"}
        self.layers: list[Any] = []
        self.layers_with_context: list[Any] | None = None
        self.validity: tuple[str, int] | None = None
        self.rtx = False
        self.compiled = 0
        self.opens = self.runs = self.captures = self.takes_shape = self.takes_address = True
        self.finite = True
        self.contexts_left = 100
        self.logger: Any = None

    def module(self) -> SimpleNamespace:
        """What `import tensorrt` gives."""

        class ILogger:
            INTERNAL_ERROR, ERROR, WARNING = 1, 2, 3

        return SimpleNamespace(
            __version__="10.3.0",
            ILogger=ILogger,
            Runtime=lambda logger: Runtime(self, logger),
            LayerInformationFormat=SimpleNamespace(JSON="json"),
            CudaGraphStrategy=SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole", DISABLED="disabled"),
            DynamicShapesKernelSpecializationStrategy=SimpleNamespace(LAZY="lazy", EAGER="eager", NONE="none"),
        )


def network(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """The engine of a fake that was told of no other: (N, 3, H, W) -> logits (N, 5, H / 8, W / 8)."""
    small = images[:, :, ::8, ::8]
    weights = np.arange(1, CHANNELS * 3 + 1, dtype=np.float32).reshape(CHANNELS, 3) % 4 - 1
    logits: NDArray[np.float32] = np.einsum("kc,nchw->nkhw", weights, small).astype(np.float32)
    return logits


class Context:
    def __init__(self, gpu: NullTensorRT) -> None:
        self.gpu, self.created_on = gpu, gpu.call()
        self.shape: tuple[int, ...] | None = None
        self.warm = False
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == "input"
        self.gpu.journal.append(f"shape {shape[0]}")
        self.shape, self.warm = shape, False
        return self.gpu.takes_shape

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert name in self.gpu.io
        assert self.gpu.memory[address].kind == "device"
        self.gpu.journal.append(f"address {name}")
        self.addresses[name] = address
        return self.gpu.takes_address

    def execute_async_v3(self, stream_handle: int) -> bool:
        gpu, stream = self.gpu, self.gpu.streams[stream_handle]
        assert gpu.call() == self.created_on, "another GPU's context is current"
        assert self.shape is not None
        assert self.addresses.keys() == gpu.io.keys()
        shape, addresses = self.shape, [self.addresses[name] for name in gpu.io]
        gpu.journal.append(f"execute {shape[0]}")
        if not gpu.runs:
            gpu.logger.log(2, "the kernel went missing")
            return False
        if stream.captured is not None and not (gpu.captures and self.warm):
            stream.invalid = True
            gpu.logger.log(2, "this cannot be captured")
            return False
        self.warm = True

        def run() -> None:
            output = gpu.network(gpu.view(addresses[0], int(np.prod(shape)) * 4).view(np.float32).reshape(shape))
            gpu.runs_done += 1
            if not gpu.finite:
                output[0, 0, 0, 0] = np.nan
            if "labels" in gpu.io and output.dtype != np.uint8:
                output = output.repeat(8, 2).repeat(8, 3).argmax(1).astype(np.uint8)
            gpu.view(addresses[1], output.nbytes)[:] = output.reshape(-1).view(np.uint8)
            stream.clock += 1.5 * shape[0]

        stream.enqueue(run)
        return True

    def __del__(self) -> None:
        self.gpu.journal.append("destroy context")


class RuntimeCache:
    def __init__(self) -> None:
        self.kept = b""

    def deserialize(self, blob: bytes) -> bool:
        if blob == _COMPILED:
            self.kept = blob
        return blob == _COMPILED

    def serialize(self) -> bytes:
        return self.kept


class RuntimeConfig:
    dynamic_shapes_kernel_specialization_strategy = "lazy"

    def __init__(self) -> None:
        self.cuda_graph_strategy = "disabled"
        self.cache = RuntimeCache()

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache()

    def set_runtime_cache(self, cache: RuntimeCache) -> None:
        self.cache = cache


class CudaEngine:
    def __init__(self, gpu: NullTensorRT) -> None:
        self.gpu = gpu
        self.num_io_tensors = len(gpu.io)
        if gpu.rtx:
            self.create_runtime_config = RuntimeConfig

    def get_tensor_name(self, index: int) -> str:
        return list(self.gpu.io)[index]

    def get_tensor_dtype(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(name=self.gpu.io[name])

    def create_execution_context(self, config: RuntimeConfig | None = None) -> Context | None:
        self.gpu.contexts_left -= 1
        if config is not None:
            self.gpu.journal.append(f"graphs {config.cuda_graph_strategy}")
            self.gpu.journal.append(f"kernels {getattr(config, 'dynamic_shapes_kernel_specialization_strategy', 'not set')}")
            if not config.cache.kept:
                self.gpu.compiled += 1
                config.cache.kept = _COMPILED
        return Context(self.gpu) if self.gpu.contexts_left >= 0 else None

    def create_engine_inspector(self) -> Inspector:
        return Inspector(self.gpu)


class Inspector:
    def __init__(self, gpu: NullTensorRT) -> None:
        self.gpu = gpu
        self.execution_context: Context | None = None

    def get_engine_information(self, layer_format: str) -> str:
        assert layer_format == "json"
        told = self.gpu.layers if self.execution_context is None else self.gpu.layers_with_context
        if self.execution_context is not None:
            assert self.execution_context.shape is not None
        return json.dumps({"Layers": told or [], "Bindings": list(self.gpu.io)})


class Runtime:
    def __init__(self, gpu: NullTensorRT, logger: Any) -> None:
        self.gpu = gpu
        gpu.logger = logger
        self.engine_host_code_allowed = False
        if gpu.validity is not None:
            name, reasons = gpu.validity
            self.get_engine_validity = lambda plan: (SimpleNamespace(name=name), reasons)

    def deserialize_cuda_engine(self, plan: bytes) -> CudaEngine | None:
        self.gpu.call()
        self.gpu.journal.append(f"deserialize {plan.decode()} host code {self.engine_host_code_allowed}")
        if self.gpu.opens:
            return CudaEngine(self.gpu)
        self.gpu.logger.log(2, "Serialization assertion failed")
        return None
