"""The memory of one tensor on both sides of the bus: pinned host memory as a NumPy array, and device memory of the same size."""

from __future__ import annotations

import ctypes
import importlib
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import MissingPackageError


def import_cuda() -> Any:
    """The cuda.core module. Raises MissingPackageError: without its bindings it is as good as missing."""
    try:
        return importlib.import_module("cuda.core")
    except ImportError as error:
        raise MissingPackageError("cuda-core", "gpu", "Running a TensorRT plan") from error


class TensorBuffers:
    """Pinned host and device memory for the largest batch of one tensor; `host` is that memory as an array, zeros at first.

    The device's context must be current in the calling thread. `close` ends the life of the memory that `host` shows.
    """

    def __init__(self, cuda: Any, gpu: Any, stream: Any, shape: tuple[int, ...], dtype: str) -> None:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        self._cuda = cuda
        self._pinned = cuda.LegacyPinnedMemoryResource().allocate(size)
        self._device = gpu.allocate(size, stream=stream)
        self.host: NDArray[Any] = _as_array(self._pinned, shape, dtype)
        self.host[...] = 0
        self._parts = self._pinned, self._device

    @property
    def address(self) -> int:
        """The device address."""
        return int(self._device.handle)

    def use_first(self, count: int) -> None:
        """From now on copies move the first `count` images only."""
        size = count * self.host[0].nbytes
        self._parts = _first_bytes(self._cuda, self._pinned, size), _first_bytes(self._cuda, self._device, size)

    def to_device(self, stream: Any) -> None:
        """Enqueues the copy from host to device."""
        pinned, device = self._parts
        device.copy_from(pinned, stream=stream)

    def to_host(self, stream: Any) -> None:
        """Enqueues the copy from device to host."""
        pinned, device = self._parts
        device.copy_to(pinned, stream=stream)

    def close(self, stream: Any) -> None:
        """Frees both in the order of the stream, on which nothing may use them any more."""
        self.host = np.empty((0, *self.host.shape[1:]), self.host.dtype)  # a late reader finds nothing, not freed memory
        self._parts = (None, None)
        self._device.close(stream)
        self._pinned.close(stream)


def _as_array(buffer: Any, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """Host memory as a writable array, without a copy and without owning it."""
    memory = (ctypes.c_ubyte * buffer.size).from_address(int(buffer.handle))
    return np.frombuffer(memory, np.dtype(dtype)).reshape(shape)


def _first_bytes(cuda: Any, buffer: Any, size: int) -> Any:
    """The buffer itself where all of it is meant (copies want equal sizes), else a part that keeps it alive."""
    return buffer if size == buffer.size else cuda.Buffer.from_handle(int(buffer.handle), size, owner=buffer)
