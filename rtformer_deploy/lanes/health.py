"""Watches whether a GPU still works: if one lane fails, all others fail too, and waiting ends if the GPU does not answer."""

from __future__ import annotations

import ctypes
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from ..errors import DeployError, EngineError

_HINT = "A CUDA context does not recover: start the process again. nvidia-smi shows whether the GPU still answers."
_SPIN_S = 2e-3  # a frame takes about a millisecond; sleeping is coarser than that
_NAP_S = 1e-4


class GpuHealth:
    """Shared by all lanes on one GPU: the first error that breaks its CUDA context fails every lane, even waiting and later ones.

    `name` is the GPU's, for messages; if a request takes longer than `patience_s` seconds, the GPU counts as lost.
    """

    def __init__(self, name: str, patience_s: float) -> None:
        self._name, self._patience_s = name, patience_s
        self._lock = threading.Lock()
        self._why: str | None = None
        self._watched: weakref.WeakSet[Any] = weakref.WeakSet()

    @property
    def dead(self) -> bool:
        return self._why is not None

    def check(self) -> None:
        """Raises EngineError if the GPU has failed."""
        if self._why is not None:
            raise EngineError(self._why, _HINT)

    def fail(self, reason: str) -> EngineError:
        """Marks the GPU as failed and returns the error to raise. The first reason is kept. Watched objects are never freed from now on."""
        with self._lock:
            if self._why is None:
                for held in self._watched:
                    _never_free(held)
                self._why = f"{self._name} has failed, and with it every request on it: {reason}"
        return EngineError(self._why, _HINT)

    def watching(self, probe: Callable[[], object]) -> AbstractContextManager[None]:
        """Fails at once if the GPU has failed. After an error in the block, `probe` (a harmless CUDA call) shows whether the GPU failed."""
        return _Watch(self, probe)

    def judge(self, error: Exception, probe: Callable[[], object]) -> DeployError:
        """Returns the error to raise: the GPU's failure if it has failed by now, else this request's error."""
        if not self.dead:
            try:
                probe()
            except Exception:  # sticky: every call into a broken context fails
                self.fail(str(error))
        if self._why is not None:
            return EngineError(self._why, _HINT)
        return error if isinstance(error, DeployError) else EngineError(f"CUDA refused on {self._name}: {error}")

    def wait(self, event: Any) -> None:
        """Waits for the event. Raises EngineError as soon as any lane finds that the GPU is broken, or if it does not answer in time."""
        begin = time.monotonic()
        while not event.is_done:
            self.check()
            elapsed = time.monotonic() - begin
            if elapsed > self._patience_s:
                raise self.fail(f"it has not finished a request for {self._patience_s:g} s")
            time.sleep(0 if elapsed < _SPIN_S else _NAP_S)

    def watch(self, held: object) -> None:
        """Adds an object that holds GPU memory (a lane or label maps). If the GPU fails, that memory is never freed."""
        with self._lock:
            self._watched.add(held)


class _Watch:
    """See `GpuHealth.watching`. It is a class because lanes enter it several times for each frame."""

    __slots__ = ("_health", "_probe")

    def __init__(self, health: GpuHealth, probe: Callable[[], object]) -> None:
        self._health, self._probe = health, probe

    def __enter__(self) -> None:
        self._health.check()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and (failure := self._health.judge(error, self._probe)) is not error:
            raise failure from error


def _never_free(held: object) -> None:
    """Keeps an object and everything it holds for ever, even when the interpreter exits.

    Freeing memory of a GPU that does not answer can block for ever. A list is not enough: it is emptied at exit, and then cuda.core's
    buffers free their memory. An extra reference is never released.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(held))
