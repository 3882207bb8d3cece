"""A TensorRT for tests, over the stub's GPU: its engine is a small network in NumPy; with `rtx` it has TensorRT-RTX's runtime settings.

NVIDIA's own needs a GPU even to open a plan. This one holds its callers to TensorRT's rules: a shape before an address, every address
before a run, a first run outside a capture, the context of the GPU that it was made on.
"""

from __future__ import annotations

import ctypes
import json
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from stub import StubDriver
from stub_lab import Told, bytes_at, is_capturing

from rtformer_deploy.nvidia.driver import current_context, memory_owner

CHANNELS = 5
_COMPILED = b"compiled kernels"
_NUMPY_TYPES: dict[str, np.dtype[Any]] = {"FLOAT": np.dtype(np.float32), "HALF": np.dtype(np.float16), "UINT8": np.dtype(np.uint8)}


class FakeTensorRT:
    """What TensorRT says of any plan it is given, and what it does. Its calls are lines in the stub's log, as "TensorRT: execute 2".

    Every plan is `network`: images (N, 3, H, W) to logits, or to labels. `runs_done` counts the runs that the GPU has finished.
    """

    def __init__(self, driver: StubDriver) -> None:
        self.driver = driver
        self.network: Callable[[NDArray[np.float32]], NDArray[Any]] = network
        self.runs_done = 0
        self.run_s = 0.0  # how long each image of a run takes the GPU
        self.io = {"input": "FLOAT", "logits": "FLOAT"}
        self.layers: list[Any] = []
        self.layers_with_context: list[Any] | None = None
        self.validity: tuple[str, int] | None = None
        self.rtx = False
        self.compiled = 0
        self.opens = self.runs = self.captures = self.takes_shape = self.takes_address = True
        self.waits_in_capture = False
        self.finite = True
        self.contexts_left = 100
        self.refittable = True
        self.not_exchangeable: set[str] = set()  # weights that the plan does not let go of
        self.not_in_the_model: set[str] = set()  # weights of the plan that no model has
        self.tells_missing = True
        self.takes_weights = self.exchanges = self.writes = True
        self.knows_include_refit = True
        self.logger: Any = None

    def note(self, line: str) -> None:
        self.driver.note(f"TensorRT: {line}")

    def module(self) -> SimpleNamespace:
        """What `import tensorrt` gives."""

        class ILogger:
            INTERNAL_ERROR, ERROR, WARNING = 1, 2, 3

        return SimpleNamespace(
            __version__="10.3.0",
            ILogger=ILogger,
            Runtime=lambda logger: Runtime(self, logger),
            LayerInformationFormat=SimpleNamespace(JSON="json"),
            Refitter=lambda engine, logger: Refitter(self, engine),
            OnnxParserRefitter=lambda refitter, logger: OnnxParserRefitter(self, refitter),
            SerializationFlag=SimpleNamespace(EXCLUDE_WEIGHTS=1, **({"INCLUDE_REFIT": 4} if self.knows_include_refit else {})),
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
    def __init__(self, fake: FakeTensorRT) -> None:
        self.fake, self.created_on = fake, current_context()
        self.shape: tuple[int, ...] | None = None
        self.warm = False
        self.addresses: dict[str, int] = {}
        self._told: dict[tuple[int, ...], Told] = {}  # graphs hold their callbacks

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == "input"
        self.fake.note(f"shape {shape[0]}")
        self.shape, self.warm = shape, False
        return self.fake.takes_shape

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert name in self.fake.io
        assert memory_owner(address) is not None, "that is no device memory"
        self.fake.note(f"address {name}")
        self.addresses[name] = address
        return self.fake.takes_address

    def execute_async_v3(self, stream_handle: int) -> bool:
        fake = self.fake
        assert current_context() == self.created_on, "another GPU's context is current"
        assert self.shape is not None
        assert self.addresses.keys() == fake.io.keys()
        fake.note(f"execute {self.shape[0]}")
        if not fake.runs:
            fake.logger.log(2, "the kernel went missing")
            return False
        if is_capturing(fake.driver, stream_handle) and not self._may_be_captured(stream_handle):
            fake.logger.log(2, "this cannot be captured")
            return False
        self.warm = True
        told = self._told.setdefault((*self.shape, *self.addresses.values()), Told(self._run(self.shape)))
        return fake.driver.enqueue_host(stream_handle, told.callback) == 0

    def _may_be_captured(self, stream_handle: int) -> bool:
        """Whether it may; if not, the capture is spoiled, as by a layer that waits for its stream."""
        may = self.fake.captures and self.warm
        if self.fake.waits_in_capture or not may:
            assert self.fake.driver.library.cuStreamSynchronize(ctypes.c_void_p(stream_handle)) != 0
        return may

    def _run(self, shape: tuple[int, ...]) -> Callable[[], None]:
        """The run with what is set now, as the stream comes to it."""
        fake, (source, target) = self.fake, [self.addresses[name] for name in self.fake.io]

        def run() -> None:
            time.sleep(fake.run_s * shape[0])
            given, made = (_NUMPY_TYPES[kind] for kind in fake.io.values())
            images = bytes_at(source, int(np.prod(shape)) * given.itemsize).view(given).reshape(shape)
            output = fake.network(images.astype(np.float32))
            fake.runs_done += 1
            if not fake.finite:
                output[0, 0, 0, 0] = np.nan
            if "labels" in fake.io and output.dtype != np.uint8:
                output = output.repeat(8, 2).repeat(8, 3).argmax(1).astype(np.uint8)
            if made == np.float16:
                output = output.astype(np.float16)
            bytes_at(target, output.nbytes)[:] = output.reshape(-1).view(np.uint8)

        return run

    def __del__(self) -> None:
        self.fake.note("destroy context")


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
    def __init__(self, fake: FakeTensorRT) -> None:
        self.fake = fake
        self.num_io_tensors = len(fake.io)
        if fake.rtx:
            self.create_runtime_config = RuntimeConfig

    def get_tensor_name(self, index: int) -> str:
        return list(self.fake.io)[index]

    def get_tensor_dtype(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(name=self.fake.io[name])

    def create_execution_context(self, config: RuntimeConfig | None = None) -> Context | None:
        self.fake.contexts_left -= 1
        if config is not None:
            self.fake.note(f"graphs {config.cuda_graph_strategy}")
            self.fake.note(f"kernels {getattr(config, 'dynamic_shapes_kernel_specialization_strategy', 'not set')}")
            if not config.cache.kept:
                self.fake.compiled += 1
                config.cache.kept = _COMPILED
        return Context(self.fake) if self.fake.contexts_left >= 0 else None

    def create_engine_inspector(self) -> Inspector:
        return Inspector(self.fake)

    @property
    def refittable(self) -> bool:
        return self.fake.refittable

    def create_serialization_config(self) -> SerializationConfig:
        return SerializationConfig()

    def serialize_with_config(self, config: SerializationConfig) -> bytes | None:
        """The plan as text: "plan", "with weights" if it has them, "refittable" if it may be refitted again."""
        words = ["plan"] + ["with weights"] * (1 not in config.kept) + ["refittable"] * (4 in config.kept)
        return " ".join(words).encode() if self.fake.writes else None


class SerializationConfig:
    """A stripped engine leaves its weights out unless it is told otherwise."""

    def __init__(self) -> None:
        self.kept = {1}

    def clear_flag(self, flag: int) -> bool:
        self.kept.discard(flag)
        return True

    def set_flag(self, flag: int) -> bool:
        self.kept.add(flag)
        return True


class Refitter:
    """Exchanges the weights of an engine: from then on every plan computes what the model computes that they came from."""

    def __init__(self, fake: FakeTensorRT, engine: CudaEngine) -> None:
        assert engine.refittable, "TensorRT makes no refitter for other engines"
        self.fake = fake
        self.model: bytes | None = None
        self.given: set[str] = set()

    def get_all_weights(self) -> list[str]:
        return sorted(self.given - self.fake.not_exchangeable | self.fake.not_in_the_model)

    def get_missing_weights(self) -> list[str]:
        return sorted(self.fake.not_in_the_model) if self.fake.tells_missing else []

    def refit_cuda_engine(self) -> bool:
        assert self.model is not None
        self.fake.note("refit")
        if not self.fake.exchanges:
            self.fake.logger.log(2, "the weights went missing")
            return False
        session = onnxruntime.InferenceSession(self.model, providers=["CPUExecutionProvider"])
        source = session.get_inputs()[0].name
        self.fake.network = lambda images: np.asarray(session.run(None, {source: images})[0])
        return True


class OnnxParserRefitter:
    def __init__(self, fake: FakeTensorRT, refitter: Refitter) -> None:
        self.fake, self.refitter = fake, refitter

    def refit_from_bytes(self, model: bytes) -> bool:
        proto = onnx.load_from_string(model)
        self.refitter.model, self.refitter.given = model, {tensor.name for tensor in proto.graph.initializer}
        return self.fake.takes_weights

    @property
    def num_errors(self) -> int:
        return 0 if self.fake.takes_weights else 1

    def get_error(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(desc=lambda: f"refit error {index}")


class Inspector:
    def __init__(self, fake: FakeTensorRT) -> None:
        self.fake = fake
        self.execution_context: Context | None = None

    def get_engine_information(self, layer_format: str) -> str:
        assert layer_format == "json"
        told = self.fake.layers if self.execution_context is None else self.fake.layers_with_context
        if self.execution_context is not None:
            assert self.execution_context.shape is not None
        return json.dumps({"Layers": told or [], "Bindings": list(self.fake.io)})


class Runtime:
    def __init__(self, fake: FakeTensorRT, logger: Any) -> None:
        self.fake = fake
        fake.logger = logger
        self.engine_host_code_allowed = False
        if fake.validity is not None:
            name, reasons = fake.validity
            self.get_engine_validity = lambda plan: (SimpleNamespace(name=name), reasons)

    def deserialize_cuda_engine(self, plan: bytes) -> CudaEngine | None:
        assert current_context() != 0, "a plan is opened on the GPU that is current"
        self.fake.note(f"deserialize {plan.decode()} host code {self.engine_host_code_allowed}")
        if self.fake.opens:
            return CudaEngine(self.fake)
        self.fake.logger.log(2, "Serialization assertion failed")
        return None
