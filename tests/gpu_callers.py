"""A caller's frames on a GPU, as each library that has them there makes them, and its streams: cuda.core, torch, CuPy."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
import pytest
from numpy.typing import NDArray

from rtformer_deploy.types import Frame

#: Keeps the stream with this handle busy for a while, so that what is queued behind it is late.
Delay = Callable[[int], object]

_SPIN = 'extern "C" __global__ void spin(long long cycles) { const long long begin = clock64(); while (clock64() - begin < cycles) {} }'
_CYCLES = 10_000_000  # some milliseconds


class Caller(Protocol):
    """A caller with a `stream` of its own."""

    stream: Any

    def late(self, frame: Frame, before: Frame) -> Any:
        """An array on the GPU that holds `before`; its stream writes `frame` into it, but not soon."""
        ...

    def overwrite(self, array: Any) -> None:
        """Enqueues zeros into an array."""
        ...

    def to_host(self, labels: Any) -> NDArray[np.uint8]:
        """What a label map on the GPU holds."""
        ...


class CudaCoreCaller:
    def __init__(self, cuda: Any, delay: Delay) -> None:
        self._cuda, self._delay = cuda, delay
        self._gpu = cuda.Device(0)
        self._gpu.set_current()
        self.stream = self._gpu.create_stream()
        self._kept: list[Any] = []

    def late(self, frame: Frame, before: Frame) -> Any:
        buffer = self._gpu.allocate(frame.nbytes, stream=self.stream)
        buffer.copy_from(self._pinned(before), stream=self.stream)
        self._delay(int(self.stream.handle))
        buffer.copy_from(self._pinned(frame), stream=self.stream)
        shown = {"shape": frame.shape, "typestr": "|u1", "data": (int(buffer.handle), False), "strides": None, "version": 2}
        return SimpleNamespace(buffer=buffer, __cuda_array_interface__=shown)

    def overwrite(self, array: Any) -> None:
        array.buffer.fill(0, stream=self.stream)

    def to_host(self, labels: Any) -> NDArray[np.uint8]:
        height, width = labels.shape
        pinned, given = self._memory(height * width)
        self._cuda.Buffer.from_handle(labels.address, height * width, owner=labels).copy_to(pinned, stream=self.stream)
        self.stream.sync()
        return given.reshape(height, width).copy()

    def _pinned(self, data: NDArray[np.uint8]) -> Any:
        buffer, memory = self._memory(data.nbytes)
        memory[:] = data.reshape(-1)
        return buffer

    def _memory(self, size: int) -> tuple[Any, NDArray[np.uint8]]:
        import ctypes

        buffer = self._cuda.LegacyPinnedMemoryResource().allocate(size)
        self._kept.append(buffer)  # a copy may be queued
        return buffer, np.ctypeslib.as_array((ctypes.c_ubyte * size).from_address(int(buffer.handle)))


class TorchCaller:
    def __init__(self, delay: Delay) -> None:
        torch = pytest.importorskip("torch", reason="needs PyTorch")
        if not torch.cuda.is_available():
            pytest.skip(f"this PyTorch ({torch.__version__}) has no CUDA")
        self._torch, self._delay = torch, delay
        self.stream = torch.cuda.Stream()

    def late(self, frame: Frame, before: Frame) -> Any:
        with self._torch.cuda.stream(self.stream):
            array = self._torch.from_numpy(before).cuda()
            self._delay(self.stream.cuda_stream)
            array.copy_(self._torch.from_numpy(frame).pin_memory(), non_blocking=True)
        return array

    def overwrite(self, array: Any) -> None:
        with self._torch.cuda.stream(self.stream):
            array.zero_()

    def to_host(self, labels: Any) -> NDArray[np.uint8]:
        return np.asarray(self._torch.as_tensor(labels, device="cuda").cpu().numpy())


class CupyCaller:
    def __init__(self, delay: Delay) -> None:
        self._cupy = pytest.importorskip("cupy", reason="needs CuPy")
        self._delay = delay
        self.stream = self._cupy.cuda.Stream(non_blocking=True)
        self._kept: list[Any] = []

    def late(self, frame: Frame, before: Frame) -> Any:
        with self.stream:
            array = self._cupy.asarray(before)
            self._delay(self.stream.ptr)
            array.set(self._pinned(frame), stream=self.stream)
        return array

    def overwrite(self, array: Any) -> None:
        with self.stream:
            array.fill(0)

    def to_host(self, labels: Any) -> NDArray[np.uint8]:
        return np.asarray(self._cupy.asnumpy(self._cupy.asarray(labels)))

    def _pinned(self, frame: Frame) -> NDArray[np.uint8]:
        memory = self._cupy.cuda.alloc_pinned_memory(frame.nbytes)
        pinned = np.frombuffer(memory, np.uint8, frame.nbytes).reshape(frame.shape)
        pinned[...] = frame
        self._kept.append(memory)  # the copy may be queued
        return pinned


def spinning(cuda: Any) -> Delay:
    """A delay that a kernel makes."""
    gpu = cuda.Device(0)
    gpu.set_current()
    capability = gpu.compute_capability
    options = cuda.ProgramOptions(arch=f"sm_{capability.major}{capability.minor}")
    kernel = cuda.Program(_SPIN, "c++", options).compile("cubin").get_kernel("spin")
    one = cuda.LaunchConfig(grid=1, block=1)
    return lambda handle: cuda.launch(cuda.Stream.from_handle(handle), one, kernel, _CYCLES)
