"""Lanes over the stub with an engine in NumPy that is strict about its execution contexts, and what a caller does on the GPU."""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from fake_tensorrt import network
from helpers import tiny_spec
from numpy.typing import NDArray
from stub import StubDriver
from stub_lab import Told, bytes_at, is_capturing
from tensorrt_plans import make_info

from rtformer_deploy.errors import EngineError
from rtformer_deploy.image import frames as image
from rtformer_deploy.lanes.health import GpuHealth
from rtformer_deploy.lanes.kernels import FrameKernels
from rtformer_deploy.lanes.lane import Lane
from rtformer_deploy.lanes.shared import LaneShare, on_device
from rtformer_deploy.runtime.frame_runner import FrameRunner
from rtformer_deploy.types import EngineInfo

NONSENSE = 0x77


class StrictContext:
    """Implements `ExecutionContext`. A run that was captured before the context was set otherwise writes nonsense, as TensorRT may do."""

    def __init__(self, engine: StrictEngine) -> None:
        self._engine = engine
        self._batch = self._settings = 0
        self._at: dict[str, int] = {}
        self._kept: list[Told] = []  # graphs hold their callbacks

    def set_batch(self, batch: int) -> None:
        self._settings += 1
        self._batch = batch

    def bind(self, name: str, address: int) -> None:
        self._settings += 1
        self._at[name] = address

    def execute(self, stream: int) -> None:
        self._engine.refuse_in_capture(stream)
        info, settings = self._engine.info, self._settings
        source, target = (self._at[spec.name] for spec in (info.inputs[0], info.outputs[0]))
        given, made = ((self._batch, *map(int, spec.shape[1:])) for spec in (info.inputs[0], info.outputs[0]))

        def run() -> None:
            output = bytes_at(target, 4 * int(np.prod(made)))
            if self._settings != settings:
                output[:] = NONSENSE
                return
            images = bytes_at(source, 4 * int(np.prod(given))).view(np.float32).reshape(given)
            output[:] = network(images).astype(np.float32).reshape(-1).view(np.uint8)

        told = Told(run)
        self._kept.append(told)
        if self._engine.driver.enqueue_host(stream, told.callback) != 0:
            raise EngineError("The stub does not take the callback.")


class StrictEngine:
    """Implements `CudaEngine`. `refusals` of the next runs in a capture fail; there is memory for `room` contexts."""

    def __init__(self, driver: StubDriver, info: EngineInfo) -> None:
        self.driver, self.info = driver, info
        self.refusals = 0
        self.room = 1000
        self.contexts = 0

    def create_context(self) -> StrictContext:
        if self.contexts == self.room:
            raise EngineError("TensorRT could not make an execution context; the GPU's memory may be full:\n  [E] out of memory")
        self.contexts += 1
        return StrictContext(self)

    def refuse_in_capture(self, stream: int) -> None:
        """As TensorRT does when a layer waits for the stream: the driver spoils the capture, and then TensorRT says why."""
        if self.refusals == 0 or not is_capturing(self.driver, stream):
            return
        self.refusals -= 1
        assert self.driver.library.cuStreamSynchronize(ctypes.c_void_p(stream)) != 0
        raise EngineError(f"TensorRT could not start the engine:\n  [E] layer {self.refusals} waits for its shape")


class CountedCuda:
    """cuda.core, counting what is made with it: `made`, by name."""

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        self.made: Counter[str] = Counter()
        self.launch = cuda.launch
        self.Buffer = SimpleNamespace(from_handle=self._counted("Buffer.from_handle", cuda.Buffer.from_handle))
        self.Stream = SimpleNamespace(from_handle=self._counted("Stream.from_handle", cuda.Stream.from_handle))

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._cuda, name)
        return self._counted(name, value) if name in {"LaunchConfig", "EventOptions", "LegacyPinnedMemoryResource"} else value

    def _counted(self, name: str, make: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.made[name] += 1
            return make(*arguments, **options)

        return counted


class LaneLab:
    """Opens runners of lanes whose waits let the GPU go on, and frames in device memory as a caller has them."""

    def __init__(self, driver: StubDriver, cuda: Any, gpu: Any) -> None:
        self.driver, self.cuda, self.gpu = driver, CountedCuda(cuda), gpu
        self.opened: list[FrameRunner] = []
        self.aside = gpu.create_stream()
        driver.mode("stepping")

    def open(self, lanes: int = 1, *, graphs: bool = True, batch: int = 4, patience_s: float = 30) -> FrameRunner:
        info = make_info(batch=(1, 1, batch))
        self.engine = StrictEngine(self.driver, info)
        with on_device(self.cuda, 0) as device:
            kernels = FrameKernels(self.cuda, device, info.spec, info.inputs[0].dtype, info.outputs[0].dtype)
            self.share = LaneShare(self.engine, self.cuda, 0, kernels, GpuHealth("the stub", patience_s), graphs)
            runner = FrameRunner([Lane(self.share) for _ in range(lanes)], info.spec, info.batch, None, info)
        self.opened.append(runner)
        return runner

    def on_gpu(self, frame: NDArray[np.uint8], **interface: Any) -> Any:
        """A frame in device memory, ready; `interface` goes into its `__cuda_array_interface__`."""
        buffer = self.gpu.allocate(frame.nbytes, stream=self.aside)
        self.aside.sync()
        bytes_at(int(buffer.handle), frame.nbytes)[:] = frame.reshape(-1)
        shown = {"shape": frame.shape, "typestr": "|u1", "data": (int(buffer.handle), False), "strides": None, **interface}
        return SimpleNamespace(buffer=buffer, __cuda_array_interface__=shown)

    def close(self) -> None:
        self.driver.reset()
        self.driver.mode("stepping")
        for runner in self.opened:
            runner.close()


def reference(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What the CPU code makes of a frame with this engine."""
    spec = tiny_spec()
    logits = network(image.preprocess(frame, spec.size, spec.mean, spec.std, spec.resize)[None])[0]
    return image.upsample_argmax(logits, frame.shape[:2], spec.size, spec.resize)


def check(runner: FrameRunner, given: list[NDArray[np.uint8]]) -> None:
    """One submission of all the frames gives the CPU's label maps."""
    for labels, frame in zip(runner.result(runner.submit(given)), given, strict=True):
        np.testing.assert_array_equal(labels, reference(frame))
