"""What the lanes of one runner share: the open engine, the GPU with its kernels and its health, and notes for the user."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from ..nvidia import driver as gpu
from .engine import CudaEngine
from .health import GpuHealth
from .kernels import FrameKernels


@dataclass(slots=True)
class LaneShare:
    """`cuda` is the module cuda.core.

    `capture` says whether lanes capture CUDA graphs of their own; `notes` collects what a user should hear, once each. `on_last_close` is
    called when the last lane closes, while the engine is still open.
    """

    engine: CudaEngine
    cuda: Any
    device: int
    kernels: FrameKernels
    health: GpuHealth
    capture: bool
    on_last_close: Callable[[], object] = lambda: None
    notes: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _open: int = 0

    def current(self) -> AbstractContextManager[Any]:
        """The GPU, with its primary context current in this thread; afterwards the caller's own context is current again."""
        return on_device(self.cuda, self.device)

    def say(self, note: str | None) -> None:
        """Keeps a note, if it is one. Any thread may call it."""
        with self._lock:
            if note is not None and note not in self.notes:
                self.notes.append(note)

    def opened(self) -> None:
        """A lane was made."""
        with self._lock:
            self._open += 1

    def closing(self) -> None:
        """A lane that works is about to give up its context; with the last one `on_last_close` is called."""
        with self._lock:
            self._open -= 1
            last = self._open == 0
        if last:
            self.on_last_close()


class _Here(threading.local):
    """The primary contexts of the GPUs that this thread has made current, by their number."""

    def __init__(self) -> None:
        self.contexts: dict[int, int] = {}


_here = _Here()


@contextmanager
def on_device(cuda: Any, index: int) -> Iterator[Any]:
    """GPU `index`, current in this thread (contexts are a thread's own); afterwards the context of before is current again."""
    before = gpu.current_context()
    device = cuda.Device(index)
    mine = _here.contexts.get(index)
    if mine is None or mine != before:  # cuda.core wants set_current once a thread, even if the context is current already
        device.set_current()
        mine = _here.contexts[index] = gpu.current_context()
    try:
        yield device
    finally:
        if before not in (0, mine):
            gpu.set_context(before)
