"""An engine for lanes over the stub: ONNX Runtime over the stub's memory, run when the stream comes to it, and the runners that use it."""

from __future__ import annotations

import functools
import math
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
from helpers import tiny_model
from numpy.typing import NDArray
from stub import StubDriver
from stub_lab import Told, bytes_at

from rtformer_deploy.backends import build, open_engine
from rtformer_deploy.backends.onnxruntime.run import open_model, session_options
from rtformer_deploy.errors import EngineError
from rtformer_deploy.formats.model_file import read_spec
from rtformer_deploy.graph.fp16 import to_fp16
from rtformer_deploy.graph.half_ends import half_ends
from rtformer_deploy.lanes.health import GpuHealth
from rtformer_deploy.lanes.kernels import FrameKernels
from rtformer_deploy.lanes.lane import Lane
from rtformer_deploy.lanes.shared import LaneShare, on_device
from rtformer_deploy.runtime.frame_runner import FrameRunner
from rtformer_deploy.types import BuildOptions, Engine, Frame, Head, Io, TensorSpec

Key = tuple[int, int, int]  # batch, address of the input, address of the output


class OnnxContext:
    """Implements `ExecutionContext`. Each run reads and writes what was bound when it was enqueued, as a captured run does in its graph."""

    def __init__(self, engine: OnnxEngine) -> None:
        self._engine = engine
        self._batch = 0
        self._at: dict[str, int] = {}
        self._runs: dict[Key, Told] = {}  # graphs hold their callbacks, so these live as long as the context

    def set_batch(self, batch: int) -> None:
        if not 1 <= batch <= self._engine.info.batch[2]:
            raise EngineError(f"The stand-in takes up to {self._engine.info.batch[2]} images, not {batch}.")
        self._batch = batch
        self._at.clear()

    def bind(self, name: str, address: int) -> None:
        assert self._batch > 0, "a tensor is bound for a batch"
        self._at[name] = address

    def execute(self, stream: int) -> None:
        info = self._engine.info
        key = (self._batch, self._at[info.inputs[0].name], self._at[info.outputs[0].name])
        told = self._runs.setdefault(key, Told(functools.partial(self._engine.compute, *key)))
        status = self._engine.driver.enqueue_host(stream, told.callback)
        if status != 0:
            raise EngineError(f"The stand-in could not be enqueued (CUDA error {status}).")


class OnnxEngine:
    """Implements `CudaEngine` with an ONNX Runtime engine; `runs` counts what the stub has run of it."""

    def __init__(self, driver: StubDriver, engine: Engine) -> None:
        self.driver, self.info = driver, engine.info
        self.runs = 0
        self._session = open_model(engine, session_options(1))

    def create_context(self) -> OnnxContext:
        return OnnxContext(self)

    def compute(self, batch: int, source: int, target: int) -> None:
        """One run over the stub's memory; called when the stream comes to it."""
        images, output = _view(self.info.inputs[0], batch, source), _view(self.info.outputs[0], batch, target)
        (output[:],) = self._session.run([self.info.outputs[0].name], {self.info.inputs[0].name: images})
        self.runs += 1


class Pair(NamedTuple):
    """The same engine over the stub and in the onnxruntime backend's own runner, which says what is right."""

    runner: FrameRunner
    cpu: FrameRunner
    engine: OnnxEngine


def onnx_engine(model: ir.Model, batch: tuple[int, int, int]) -> Engine:
    """A model with a free batch -> an engine of the onnxruntime backend."""
    spec = read_spec(model)
    assert spec is not None
    return build(model, spec, "onnxruntime", BuildOptions(batch=batch))


@functools.cache
def tiny_engine(head: Head = "lowres", batch: tuple[int, int, int] = (1, 2, 3), io: Io = "fp32") -> Engine:
    """An engine of the tiny network of tests/helpers.py; with FP16 ends it computes in FP16."""
    model = tiny_model("batch", head)
    return onnx_engine(half_ends(to_fp16(model)) if io == "fp16" else model, batch)


def open_lanes(driver: StubDriver, cuda: Any, engine: Engine, lanes: int = 1, *, graphs: bool = True) -> Pair:
    """`lanes` lanes over the stub; kernels must come from `stub.compile_kernel_file`."""
    info, over_stub = engine.info, OnnxEngine(driver, engine)
    with on_device(cuda, 0) as device:
        kernels = FrameKernels(cuda, device, info.spec, info.inputs[0].dtype, info.outputs[0].dtype)
        health = GpuHealth("the stub", 30)
        share = LaneShare(engine=over_stub, cuda=cuda, device=0, kernels=kernels, health=health, capture=graphs)
        runner = FrameRunner([Lane(share) for _ in range(lanes)], info.spec, info.batch, None, info)
    return Pair(runner, open_engine(engine, threads=1), over_stub)


def on_gpu(gpu: Any, frame: Frame, stream: Any) -> Any:
    """A frame in device memory, complete, as an array with `__cuda_array_interface__` that owns it."""
    buffer = gpu.allocate(frame.nbytes, stream=stream)
    stream.sync()
    bytes_at(int(buffer.handle), frame.nbytes)[:] = frame.reshape(-1)
    shown = {"shape": frame.shape, "typestr": "|u1", "data": (int(buffer.handle), False), "strides": None, "version": 3, "stream": None}
    return SimpleNamespace(buffer=buffer, __cuda_array_interface__=shown)


def _view(spec: TensorSpec, batch: int, address: int) -> NDArray[Any]:
    """A tensor of `batch` images at an address of the stub's memory."""
    shape, dtype = (batch, *map(int, spec.shape[1:])), np.dtype(spec.dtype)
    return bytes_at(address, math.prod(shape) * dtype.itemsize).view(dtype).reshape(shape)
