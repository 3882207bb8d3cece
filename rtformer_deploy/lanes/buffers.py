"""Memory on both sides of the bus: pinned host memory as a NumPy array, and device memory of the same size."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import math
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import MissingPackageError


def import_cuda() -> Any:
    """The cuda.core module. Raises MissingPackageError if it or its bindings are missing."""
    try:
        return importlib.import_module("cuda.core")
    except ImportError as error:
        raise MissingPackageError("cuda-core", "gpu", "Running an engine on a GPU") from error


_PARTS = 64


class Parts:
    """cuda.core buffers over parts of one. Recent ones are kept, since frames often alternate between a few sizes."""

    def __init__(self, cuda: Any, whole: Any) -> None:
        self._cuda, self._whole = cuda, whole
        self._recent: OrderedDict[tuple[int, int], Any] = OrderedDict()

    def at(self, start: int, size: int) -> Any:
        """The buffer over `size` bytes from `start` on. It keeps the whole alive; it is the whole itself if that is no larger."""
        part = self._recent.pop((start, size), None) or self._make(start, size)
        self._recent[start, size] = part  # now the newest; each step is one that other threads cannot interrupt
        if len(self._recent) > _PARTS:
            with contextlib.suppress(KeyError):  # another thread has dropped the last one
                self._recent.popitem(last=False)
        return part

    def _make(self, start: int, size: int) -> Any:
        whole = self._whole
        if (start, size) == (0, whole.size):
            return whole
        return self._cuda.Buffer.from_handle(int(whole.handle) + start, size, owner=whole)


class PairedMemory:
    """`size` bytes of device memory, and as many of pinned host memory, which is allocated when `host` is first asked for.

    The device's context must be current in the calling thread. After `close`, arrays from `host` are invalid.
    """

    def __init__(self, cuda: Any, gpu: Any, stream: Any, size: int) -> None:
        self._cuda = cuda
        self.size = self._used = size
        self._device = gpu.allocate(size, stream=stream)
        self._pinned: Any = None
        self._device_parts: Parts | None = Parts(cuda, self._device)
        self._pinned_parts: Parts | None = None
        self._bytes = np.empty(0, np.uint8)

    @property
    def address(self) -> int:
        """The device address."""
        return int(self._device.handle)

    @property
    def host(self) -> NDArray[np.uint8]:
        """The host memory, uint8 (size,); zeros at first."""
        if self._pinned is None and self._device is not None:
            self._pinned = self._cuda.LegacyPinnedMemoryResource().allocate(self.size)
            self._pinned_parts = Parts(self._cuda, self._pinned)
            self._bytes = _as_bytes(self._pinned)
            self._bytes[...] = 0
        return self._bytes

    def use_first(self, size: int) -> None:
        """From now on copies and fills touch the first `size` bytes only."""
        self._used = size

    def part(self, start: int, size: int) -> Any:
        """A part of the device memory as a cuda.core buffer."""
        assert self._device_parts is not None, "the memory was freed"
        return self._device_parts.at(start, size)

    def to_device(self, stream: Any) -> None:
        """Enqueues the copy from the host."""
        self.part(0, self._used).copy_from(self._pinned_part(self._used), stream=stream)

    def to_host(self, stream: Any) -> None:
        """Enqueues the copy to the host. Read `host` once before a capture: it allocates."""
        self.part(0, self._used).copy_to(self._pinned_part(self._used), stream=stream)

    def fill(self, value: int, stream: Any) -> None:
        """Enqueues filling the device memory with one byte value."""
        self.part(0, self._used).fill(value, stream=stream)

    def clear_first(self, size: int, stream: Any) -> None:
        """Enqueues setting the first `size` bytes of the device memory to zero."""
        self.part(0, size).fill(0, stream=stream)

    def close(self, stream: Any) -> None:
        """Frees both; freeing pinned memory waits for all work in the context. Nothing may use them after that."""
        self._bytes = np.empty(0, np.uint8)  # a late reader gets an empty array, not freed memory
        device, pinned = self._device, self._pinned
        self._device = self._pinned = self._device_parts = self._pinned_parts = None
        device.close(stream)
        if pinned is not None:
            pinned.close(stream)

    def _pinned_part(self, size: int) -> Any:
        assert self.host.size
        assert self._pinned_parts is not None
        return self._pinned_parts.at(0, size)


class TensorBuffers(PairedMemory):
    """PairedMemory for the largest batch of one tensor."""

    def __init__(self, cuda: Any, gpu: Any, stream: Any, shape: tuple[int, ...], dtype: str) -> None:
        super().__init__(cuda, gpu, stream, math.prod(shape) * np.dtype(dtype).itemsize)
        self._shape, self._dtype = shape, np.dtype(dtype)

    @property
    def array(self) -> NDArray[Any]:
        """The host memory in the tensor's shape and type; after `close` it holds no images."""
        host = self.host
        return host.view(self._dtype).reshape(self._shape if host.size else (0, *self._shape[1:]))

    def use_images(self, count: int) -> None:
        """From now on copies move the first `count` images only."""
        self.use_first(count * math.prod(self._shape[1:]) * self._dtype.itemsize)


def _as_bytes(buffer: Any) -> NDArray[np.uint8]:
    """Host memory as a writable array, without a copy and without owning it."""
    memory = (ctypes.c_ubyte * buffer.size).from_address(int(buffer.handle))
    return np.frombuffer(memory, np.uint8)
