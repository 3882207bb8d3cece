"""Runners over the stub as users open them: the tensorrt backends with a fake TensorRT, and everything that happens, in order."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import stub
from fake_tensorrt import FakeTensorRT
from lane_lab import reference
from numpy.typing import NDArray
from stub import StubDriver
from stub_lab import bytes_at
from tensorrt_plans import GPU, make_engine, set_gpus

from rtformer_deploy.backends.tensorrt.library import TrtLibrary
from rtformer_deploy.formats.model_file import serialize_model
from rtformer_deploy.runtime.frame_runner import FrameRunner
from rtformer_deploy.types import Backend, Engine, Frame, LabelMap, ModelSpec

SIZES = ((64, 96), (50, 70), (131, 200), (33, 41))
ALLOCATED, FREED = ("queued allocate", "allocated"), ("queued free", "freed")
_DETAILS = re.compile(r",? \d+ bytes| of \d+ nodes| in stream \S+")
_TENSORRT_TYPES = {"float32": "FLOAT", "uint8": "UINT8"}


class TensorRTLab(FakeTensorRT):
    """Two GPUs, which the runners' messages call "NVIDIA Fake (8.6)", and a fake TensorRT 10.3.0. Waits let the GPU go on."""

    def __init__(self, driver: StubDriver, cuda: Any) -> None:
        super().__init__(driver)
        self.cuda = cuda
        self._used = driver.used()
        driver.mode("stepping")
        driver.forget()

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        library, rtx = TrtLibrary(self.module(), "tensorrt", False), TrtLibrary(self.module(), "tensorrt-rtx", True)
        set_gpus(monkeypatch, GPU, dataclasses.replace(GPU, index=1))
        monkeypatch.setattr("rtformer_deploy.backends.tensorrt.plan.load_library", lambda name, *_: library if name == "tensorrt" else rtx)
        monkeypatch.setattr("rtformer_deploy.lanes.kernels.compile_kernel_file", stub.compile_kernel_file)

    def engine_of(self, backend: Backend, model: ir.Model, spec: ModelSpec, batch: tuple[int, int, int]) -> Engine:
        """An engine that computes what an ONNX model with a free batch computes; any batch may be asked of it."""
        session = onnxruntime.InferenceSession(serialize_model(model), providers=["CPUExecutionProvider"])
        self.network = lambda images: np.asarray(session.run(None, {spec.input.name: images})[0])
        self.rtx = backend == "tensorrt-rtx"
        self.io = {tensor.name: _TENSORRT_TYPES[tensor.dtype] for tensor in (spec.input, spec.output)}
        version = f"{backend} {self.module().__version__}"
        return make_engine(backend=backend, spec=spec, inputs=(spec.input,), outputs=(spec.output,), batch=batch, builder_version=version)

    # What happened.

    def journal(self) -> list[str]:
        """The stub's log without sizes and streams: "queued copy pinned to device", "captured fill", "TensorRT: execute 2"."""
        return [_DETAILS.sub("", line) for line in self.driver.log()]

    def count(self, *starts: str) -> int:
        return sum(line.startswith(starts) for line in self.journal())

    def captured(self) -> int:
        return self.driver.calls().get("cuStreamBeginCapture_v2", 0)

    def replayed(self) -> int:
        return self.driver.calls().get("cuGraphLaunch", 0)

    def during(self, work: Callable[[], object]) -> list[str]:
        """The journal of `work`."""
        before = len(self.journal())
        work()
        return self.journal()[before:]

    def calls(self, work: Callable[[], object]) -> Counter[str]:
        """How often `work` does what."""
        return Counter(self.during(work))

    def live(self) -> int:
        """The bytes that are allocated now and were not at the beginning."""
        return self.driver.used() - self._used

    # What a caller has on the GPU.

    def caller_array(self, frame: NDArray[Any], device: int = 0, **interface: Any) -> Any:
        """A frame in device memory as a caller's library shows it, complete; `interface` goes into its `__cuda_array_interface__`."""
        gpu = self.cuda.Device(device)
        gpu.set_current()
        stream = gpu.create_stream()
        buffer = gpu.allocate(frame.nbytes, stream=stream)
        stream.sync()
        self.cuda.Device(0).set_current()
        bytes_at(int(buffer.handle), frame.nbytes)[:] = np.ascontiguousarray(frame).reshape(-1).view(np.uint8)
        told = {"shape": frame.shape, "typestr": frame.dtype.str, "data": (int(buffer.handle), False), "version": 3}
        return SimpleNamespace(buffer=buffer, __cuda_array_interface__={**told, "strides": None, "stream": None, **interface})

    def pinned(self, frame: Frame) -> Any:
        """A copy in pinned memory, from which a stream may copy."""
        buffer = self.cuda.LegacyPinnedMemoryResource().allocate(frame.nbytes)
        bytes_at(int(buffer.handle), frame.nbytes)[:] = frame.reshape(-1)
        return buffer


def read(shown: Any) -> NDArray[np.uint8]:
    """What an object with `__cuda_array_interface__` shows, whatever is queued."""
    told = shown.__cuda_array_interface__
    return bytes_at(told["data"][0], int(np.prod(told["shape"]))).reshape(told["shape"]).copy()


def assert_labels(labels: Sequence[LabelMap], given: Sequence[Frame]) -> None:
    """They are the CPU's, bit for bit."""
    for one, frame in zip(labels, given, strict=True):
        np.testing.assert_array_equal(one, reference(frame))


def check(runner: FrameRunner, given: Sequence[Frame]) -> None:
    """Each frame, on its own, gets the CPU's labels."""
    for frame in given:
        assert_labels(runner.run([frame]), [frame])
