"""TensorRT and TensorRT-RTX plans to sessions: one CUDA stream, one execution context and pinned buffers each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DeployError, EngineError
from ..trt_layers import judge, layer_precisions
from ..types import Engine, EngineInfo, PrecisionFound
from .base import Session, rebuild_hint
from .cuda_buffers import TensorBuffers, import_cuda
from .trt_plan import OpenPlan, choose_gpu, open_plan, refuse_what_cannot_open

_UNTOLD = "; the opened plan's layers tell no types"


def check(info: EngineInfo) -> None:
    """Raises EngineError or MissingPackageError, with the command that mends it, where a plan of this kind cannot be opened here."""
    refuse_what_cannot_open(info)
    import_cuda()


def open_sessions(engine: Engine, device: int, threads: int | None, lanes: int) -> list[Session]:
    """A TensorRT plan to `lanes` sessions over one engine on GPU `device`, in its primary context; `threads` means nothing on a GPU.

    Raises EngineError with TensorRT's own words, UsageError where there is no such GPU.
    """
    gpu = choose_gpu(engine.info, device)
    cuda = import_cuda()
    sessions: list[Session] = []
    try:
        cuda.Device(device).set_current()
        plan = open_plan(engine)
        for _ in range(lanes):
            sessions.append(TensorRTSession(plan, cuda, device))
        return sessions
    except BaseException as error:
        for session in sessions:
            session.close()
        if isinstance(error, DeployError) or not isinstance(error, Exception):
            raise
        raise EngineError(f"The plan cannot be opened on {gpu}: {error}", rebuild_hint(engine.info)) from error


def precision_after_open(engine: Engine, device: int) -> PrecisionFound:
    """Opens a plan on GPU `device` and reads the precision that its layers have.

    Where they do not tell, what was known of the network stays, and `detail` says so. Raises what opening raises.
    """
    check(engine.info)
    choose_gpu(engine.info, device)
    import_cuda().Device(device).set_current()
    plan = open_plan(engine)
    trt = plan.library.module
    inspector = plan.engine.create_engine_inspector()
    layers = layer_precisions(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    if not layers:  # some builders settle the kernels with the context
        context = plan.create_context()
        set_batch(context, engine.info, engine.info.batch[1], plan)
        inspector.execution_context = context
        layers = layer_precisions(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    before = engine.info.precision
    if layers:
        return judge(before.asked, layers, bool(engine.info.options.get("mixed")))
    return replace(before, detail=f"{before.detail.removesuffix(_UNTOLD)}{_UNTOLD}")  # the same, however often it is asked


def set_batch(context: Any, info: EngineInfo, batch: int, plan: OpenPlan) -> None:
    """Tells the context the input's shape. Raises EngineError where the engine does not take that batch."""
    source = info.inputs[0]
    if not context.set_input_shape(source.name, (batch, *map(int, source.shape[1:]))):
        raise plan.failure(f"The engine does not take a batch of {batch}")


class TensorRTSession:
    """A Session around one execution context on a stream of its own; also `bench.DeviceTimed`.

    Everything a request needs lives as long as the session: buffers and events are made here and freed in `close`, after the stream
    has come to rest. Any thread may use it: each call makes the GPU's primary context current in its thread.
    """

    def __init__(self, plan: OpenPlan, cuda: Any, device: int) -> None:
        self._plan, self._cuda, self._device = plan, cuda, device
        gpu = self._make_current()
        self._stream = gpu.create_stream()
        self._handle = int(self._stream.handle)
        self._begin, self._end = (gpu.create_event(cuda.EventOptions(timing_enabled=True)) for _ in range(2))
        self._done = gpu.create_event()
        self._context = plan.create_context()
        self._source, self._target = (
            TensorBuffers(cuda, gpu, self._stream, (plan.info.batch[2], *map(int, spec.shape[1:])), spec.dtype)
            for spec in (plan.info.inputs[0], plan.info.outputs[0])
        )
        self.input: NDArray[np.float32] = self._source.host
        self._batch = 0  # what shapes and addresses are set for
        self._started = False

    def start(self, batch: int) -> None:
        self._make_current()
        self._started = False
        if batch != self._batch:
            self._bind(batch)
        self._source.to_device(self._stream)
        self._stream.record(self._begin)
        if not self._context.execute_async_v3(self._handle):
            self._stream.sync()  # the copy of the input must not run on while the caller writes the next one
            raise self._plan.failure("TensorRT could not start the engine")
        self._stream.record(self._end)
        self._target.to_host(self._stream)
        self._stream.record(self._done)
        self._started = True

    def wait(self) -> NDArray[Any]:
        if not self._started:
            raise EngineError("Nothing was started, so there is nothing to wait for.")
        self._make_current()
        self._done.sync()
        return self._target.host[: self._batch]

    def device_ms(self) -> float:
        """The GPU's time for the last request that was waited for, in ms, without the copies."""
        return float(self._end - self._begin)

    def close(self) -> None:
        if self._context is None:
            return
        self._make_current()
        self._stream.sync()
        self._context, self._started = None, False
        self.input = np.empty((0, *self.input.shape[1:]), np.float32)
        for buffers in (self._source, self._target):
            buffers.close(self._stream)
        for event in (self._begin, self._end, self._done):
            event.close()
        self._stream.close()

    def _bind(self, batch: int) -> None:
        """Sets the shapes, then the addresses, for a batch; nothing is in flight."""
        self._batch = 0
        set_batch(self._context, self._plan.info, batch, self._plan)
        for spec, buffers in ((self._plan.info.inputs[0], self._source), (self._plan.info.outputs[0], self._target)):
            if not self._context.set_tensor_address(spec.name, buffers.address):
                raise self._plan.failure(f"TensorRT does not take the memory for {spec.name}")
            buffers.use_first(batch)
        self._batch = batch

    def _make_current(self) -> Any:
        """The GPU, its primary context current in this thread (contexts and cuda.core's devices are a thread's own)."""
        gpu = self._cuda.Device(self._device)
        gpu.set_current()
        return gpu
