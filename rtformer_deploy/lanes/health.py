"""Whether a GPU still works: one failed lane tells all others, and waiting ends if the GPU does not answer."""

from __future__ import annotations

import ctypes
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import DeployError, EngineError

_HINT = "A CUDA context does not recover: start the process again. nvidia-smi shows whether the GPU still answers."
_SPIN_S = 2e-3  # a frame takes about a millisecond; sleeping is coarser than that
_NAP_S = 1e-4


class GpuHealth:
    """Shared by all lanes on one GPU: the first error that kills its CUDA context fails every lane, those that wait and those to come.

    `name` is the GPU's, for messages; a request that is not done after `patience_s` seconds counts as a lost GPU.
    """

    def __init__(self, name: str, patience_s: float) -> None:
        self._name, self._patience_s = name, patience_s
        self._lock = threading.Lock()
        self._why: str | None = None
        self._held: weakref.WeakSet[Any] = weakref.WeakSet()

    @property
    def dead(self) -> bool:
        return self._why is not None

    def check(self) -> None:
        """Raises EngineError if the GPU has failed."""
        if self._why is not None:
            raise EngineError(self._why, _HINT)

    def fail(self, reason: str) -> EngineError:
        """Marks the GPU as failed; the error to raise. The first reason stays. What was watched is never freed from now on."""
        with self._lock:
            if self._why is None:
                for held in self._held:
                    _never_free(held)
                self._why = f"{self._name} has failed, and with it every request on it: {reason}"
        return EngineError(self._why, _HINT)

    @contextmanager
    def watching(self, probe: Callable[[], object]) -> Iterator[None]:
        """What happens inside fails at once on a failed GPU; after an error `probe`, a harmless CUDA call, tells whether the GPU is."""
        self.check()
        try:
            yield
        except Exception as error:
            judged = self.judge(error, probe)
            if judged is error:
                raise
            raise judged from error

    def judge(self, error: Exception, probe: Callable[[], object]) -> DeployError:
        """An error -> what to raise: the GPU's own failure, if it has failed by now, else this request's."""
        if not self.dead:
            try:
                probe()
            except Exception:  # sticky: every call into a broken context fails
                self.fail(str(error))
        if self._why is not None:
            return EngineError(self._why, _HINT)
        return error if isinstance(error, DeployError) else EngineError(f"CUDA refused on {self._name}: {error}")

    def wait(self, event: Any) -> None:
        """Returns once the event has come. Raises EngineError as soon as any lane finds the GPU broken, or it does not answer in time."""
        begin = time.monotonic()
        while not event.is_done:
            self.check()
            waited = time.monotonic() - begin
            if waited > self._patience_s:
                raise self.fail(f"it has not finished a request for {self._patience_s:g} s")
            time.sleep(0 if waited < _SPIN_S else _NAP_S)

    def watch(self, held: object) -> None:
        """Adds what holds memory of the GPU, a lane or label maps; if the GPU fails, that memory is left alone."""
        with self._lock:
            self._held.add(held)


def _never_free(held: object) -> None:
    """Keeps an object and all that it holds for ever, also when the interpreter exits.

    Freeing memory of a GPU that does not answer can wait for ever. A list would not do: it is emptied at exit, and then cuda.core's
    buffers free what they hold. One reference too many is never given up.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(held))
