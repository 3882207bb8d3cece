"""Memory on both sides of the bus: pinned host memory as a NumPy array, and device memory of the same size."""

from __future__ import annotations

import ctypes
import importlib
import math
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import MissingPackageError


def import_cuda() -> Any:
    """The cuda.core module. Raises MissingPackageError if it or its bindings are missing."""
    try:
        return importlib.import_module("cuda.core")
    except ImportError as error:
        raise MissingPackageError("cuda-core", "gpu", "Running a TensorRT plan") from error


_PARTS = 64


class _Part(NamedTuple):
    """cuda.core buffers over the first bytes of both memories; `pinned` is None until there is pinned memory."""

    device: Any
    pinned: Any


class PairedMemory:
    """`size` bytes of device memory, and as many of pinned host memory, which is allocated when `host` is first asked for.

    The device's context must be current in the calling thread. After `close`, arrays from `host` are invalid.
    """

    def __init__(self, cuda: Any, gpu: Any, stream: Any, size: int) -> None:
        self._cuda = cuda
        self.size = self._used = size
        self._device = gpu.allocate(size, stream=stream)
        self._pinned: Any = None
        self._parts: OrderedDict[int, _Part] = OrderedDict()
        self._part = self._first(size)
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
            self._parts.clear()  # these have no pinned memory
            self._part = self._first(self._used)
            self._bytes = _as_bytes(self._pinned)
            self._bytes[...] = 0
        return self._bytes

    def use_first(self, size: int) -> None:
        """From now on copies and fills touch the first `size` bytes only."""
        if size == self._used:
            return
        self._used = size
        self._part = self._first(size)

    def to_device(self, stream: Any) -> None:
        """Enqueues the copy from the host."""
        assert self.host.size
        self._part.device.copy_from(self._part.pinned, stream=stream)

    def to_host(self, stream: Any) -> None:
        """Enqueues the copy to the host. Read `host` once before a capture: it allocates."""
        assert self.host.size
        self._part.device.copy_to(self._part.pinned, stream=stream)

    def fill(self, value: int, stream: Any) -> None:
        """Enqueues filling the device memory with one byte value."""
        self._part.device.fill(value, stream=stream)

    def clear_first(self, size: int, stream: Any) -> None:
        """Enqueues setting the first `size` bytes of the device memory to zero."""
        self._first(size).device.fill(0, stream=stream)

    def first_to_host(self, size: int, stream: Any) -> None:
        """Enqueues the copy of the first `size` bytes to the host."""
        part = self._first(size)
        part.device.copy_to(part.pinned, stream=stream)

    def close(self, stream: Any) -> None:
        """Frees both; freeing pinned memory waits for all work in the context. Nothing may use them after that."""
        self._bytes = np.empty(0, np.uint8)  # a late reader gets an empty array, not freed memory
        device, pinned = self._device, self._pinned
        self._device = self._pinned = None
        self._parts.clear()
        self._part = _Part(None, None)
        device.close(stream)
        if pinned is not None:
            pinned.close(stream)

    def _first(self, size: int) -> _Part:
        """The first `size` bytes. Parts for recent sizes are cached, since frames often alternate between a few sizes."""
        part = self._parts.get(size)
        if part is None:
            pinned = None if self._pinned is None else _first_bytes(self._cuda, self._pinned, size)
            part = self._parts[size] = _Part(_first_bytes(self._cuda, self._device, size), pinned)
            if len(self._parts) > _PARTS:
                self._parts.popitem(last=False)
        self._parts.move_to_end(size)
        return part


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


def _first_bytes(cuda: Any, buffer: Any, size: int) -> Any:
    """The buffer itself if `size` is all of it (copies want equal sizes), else a part that keeps it alive."""
    return buffer if size == buffer.size else cuda.Buffer.from_handle(int(buffer.handle), size, owner=buffer)
