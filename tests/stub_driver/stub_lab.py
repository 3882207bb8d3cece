"""Memory and work for tests over the stub: pinned arrays, device buffers, and what lies in them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stub import Callback, StubDriver

Bytes = NDArray[np.uint8]


class Lab:
    """The stub's GPU with what tests do to it through cuda.core."""

    def __init__(self, driver: StubDriver, cuda: Any, gpu: Any) -> None:
        self.driver, self.cuda, self.gpu = driver, cuda, gpu
        self._aside = gpu.create_stream()
        self._kept: list[Any] = []  # a test that leaves work behind must not free what that works on

    def stream(self, *, blocking: bool = False) -> Any:
        return self.gpu.create_stream(options=self.cuda.StreamOptions(nonblocking=not blocking))

    def pinned(self, size: int, value: int = 0) -> tuple[Any, Bytes]:
        """Pinned memory, and its bytes as an array."""
        buffer = self.cuda.LegacyPinnedMemoryResource().allocate(size)
        self._kept.append(buffer)
        array = bytes_at(int(buffer.handle), size)
        array[:] = value
        return buffer, array

    def device(self, size: int, stream: Any, value: int | None = None) -> Any:
        """Device memory that is poison now, whatever the stream does; `value` is queued into all of it."""
        buffer = self.gpu.allocate(size, stream=self._aside)
        self._aside.sync()
        self._kept.append(buffer)
        if value is not None:
            buffer.fill(value, stream=stream)
        return buffer

    def close(self) -> None:
        """Forgets what is queued, then frees everything."""
        self.driver.reset()
        self._kept.clear()

    def now(self, buffer: Any) -> Bytes:
        """What lies in the memory now, whatever is queued: no driver could tell."""
        return bytes_at(int(buffer.handle), buffer.size).copy()

    def raw(self, function: str, *arguments: Any) -> int:
        """A driver function called by its exported name, integers as 64 bits; its CUDA error."""
        wide = (ctypes.c_uint64(value) if isinstance(value, int) else value for value in arguments)
        return int(self.driver.library[function](*wide))


class Told:
    """A callback in a stream; it may be queued any number of times, and lives while this does."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self.callback = Callback(self._run)

    def _run(self, _argument: int | None) -> None:
        self._work()


def is_capturing(driver: StubDriver, stream: int) -> bool:
    state = ctypes.c_int()
    assert driver.library.cuStreamIsCapturing(ctypes.c_void_p(stream), ctypes.byref(state)) == 0
    return state.value != 0


def bytes_at(address: int, size: int) -> Bytes:
    return np.ctypeslib.as_array((ctypes.c_ubyte * size).from_address(address))
