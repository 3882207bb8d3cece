"""What the lanes of one runner share: the open engine, the GPU with its kernels and its health, and notes for the user."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from ..nvidia import driver as gpu
from .engine import CudaEngine
from .health import GpuHealth
from .kernels import FrameKernels
from .pinned import PinnedMemory

#: How many submissions' frames, and how many submissions' label maps, callers may hold in pinned memory, for each lane.
LENT_PER_LANE = 2


@dataclass(slots=True)
class LaneShare:
    """`cuda` is the module cuda.core.

    `capture` says whether lanes capture their own CUDA graphs. `frames` and `labels` are the pinned memory that callers write frames into
    and read label maps from. `notes` collects notes for the user, each once. `on_last_close` is
    called when the last lane closes, while the engine and all execution contexts still exist.
    """

    engine: CudaEngine
    cuda: Any
    device: int
    kernels: FrameKernels
    health: GpuHealth
    capture: bool
    on_last_close: Callable[[], object] = lambda: None
    notes: list[str] = field(default_factory=list)
    frames: PinnedMemory = field(init=False)
    labels: PinnedMemory = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _open: int = 0
    _frees: list[Callable[[], object]] = field(default_factory=list)

    def __post_init__(self) -> None:
        current = functools.partial(on_device, self.cuda, self.device)  # what callers hold keeps this alive, and not the engine
        self.frames, self.labels = PinnedMemory(self.cuda, current), PinnedMemory(self.cuda, current)
        self.health.watch(self.frames)
        self.health.watch(self.labels)

    def current(self) -> AbstractContextManager[Any]:
        """The GPU, with its primary context current in this thread; afterwards the caller's own context is current again."""
        return on_device(self.cuda, self.device)

    def say(self, note: str | None) -> None:
        """Keeps a note unless it is None. Any thread may call this."""
        with self._lock:
            if note is not None and note not in self.notes:
                self.notes.append(note)

    def opened(self) -> None:
        """Counts a new lane."""
        with self._lock:
            self._open += 1
            self.labels.most = LENT_PER_LANE * self._open
            self.frames.most = self.labels.most * self.engine.info.batch[2]

    def closed(self, free: Callable[[], object]) -> None:
        """Call when a lane is closed and nothing of it is in flight. The last lane calls `on_last_close`, then `free` of every lane.

        Freeing memory waits for all work in the context. Before the last lane is closed, that may be work of another lane that hangs.
        """
        with self._lock:
            self._open -= 1
            self._frees.append(free)
            last = self._open == 0
        if last:
            self.on_last_close()
            while self._frees:
                self._frees.pop(0)()
            self.frames.close()
            self.labels.close()


class _ThreadContexts(threading.local):
    """The primary contexts that this thread has made current, by GPU index."""

    def __init__(self) -> None:
        self.contexts: dict[int, int] = {}


_thread_contexts = _ThreadContexts()


class _OnDevice:
    """See `on_device`. It is a class because lanes enter it several times for each frame, and a generator takes three times as long."""

    __slots__ = ("_before", "_cuda", "_index", "_mine")

    def __init__(self, cuda: Any, index: int) -> None:
        self._cuda, self._index = cuda, index
        self._before = self._mine = 0

    def __enter__(self) -> Any:
        self._before = gpu.current_context()
        device = self._cuda.Device(self._index)
        mine = _thread_contexts.contexts.get(self._index)
        if mine is None or mine != self._before:  # cuda.core needs set_current once in each thread, even if the context is already current
            device.set_current()
            mine = _thread_contexts.contexts[self._index] = gpu.current_context()
        self._mine = mine
        return device

    def __exit__(self, *exc: object) -> None:
        if self._before not in (0, self._mine):
            gpu.set_context(self._before)


def on_device(cuda: Any, index: int) -> AbstractContextManager[Any]:
    """Makes GPU `index` current in this thread, and afterwards restores the context that was current before."""
    return _OnDevice(cuda, index)
