"""An engine that stays open: batches in, values out, each batch on a thread. An engine that fails is reported and opened again."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ..errors import DeployError, EngineError, first_line
from ..runtime.frame_runner import FrameRunner
from ..types import Frame
from .batcher import BatchResult, Kind

LOG = logging.getLogger("rtformer_deploy.serve")

#: Opens the engine. It is called once at the start, and again after a failure.
OpenRunner = Callable[[], FrameRunner]


def open_hosts(openers: Mapping[str, OpenRunner], lanes: int) -> list[EngineHost]:
    """What opens each engine, by its name -> hosts that are warm. If one fails, those that are open are closed again."""
    hosts: list[EngineHost] = []
    try:
        for name, opener in openers.items():
            hosts.append(EngineHost(name, opener, lanes))
            hosts[-1].warm_up()
    except BaseException:
        for host in hosts:
            host.close()
        raise
    return hosts


class EngineDownError(EngineError):
    """The engine failed, was opened again and failed again, or could not be opened again."""


class EngineHost:
    """A runner and the threads that wait for it, `lanes` of them; `name` is what the log calls it.

    If a batch fails, its requests get the error, and the engine is closed and opened again. If it fails again before it has answered a
    batch, it is down for good: every call raises EngineDownError, and `down` says why. Raises what `open_runner` raises.
    """

    def __init__(self, name: str, open_runner: OpenRunner, lanes: int = 1) -> None:
        self.name, self.lanes = name, lanes
        self.down: str | None = None
        self._open = open_runner
        self._runner = open_runner()
        self._opened = 1  # how many times the engine was opened
        self._proved = True  # whether it has answered since it was last opened
        self._changing = threading.Lock()
        self._threads = ThreadPoolExecutor(lanes, thread_name_prefix=f"engine {name}")

    @property
    def runner(self) -> FrameRunner:
        """The runner that is open now; its spec, batch and info stay the same when the engine is opened again."""
        return self._runner

    def warm_up(self) -> None:
        """Runs one blank frame and one full batch, so that no request pays for a library's first run."""
        height, width = self._runner.spec.frame_size
        for count in sorted({1, self._runner.max_batch}):
            self._runner.run([np.zeros((height, width, 3), np.uint8)] * count)

    async def run(self, frames: Sequence[Frame], kind: Kind) -> BatchResult:
        """A batch to its values, on a thread. Raises what the engine raised, or EngineDownError."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._run, frames, kind)

    def close(self) -> None:
        """Waits for the batches in flight, then closes the engine."""
        self._threads.shutdown(wait=True)
        self._runner.close()

    def _run(self, frames: Sequence[Frame], kind: Kind) -> BatchResult:
        runner, opened = self._current()
        try:
            result = _run_batch(runner, frames, kind)
        except Exception as error:  # any backend's errors
            if self._reopen(opened, error):
                raise
            return self._run(frames, kind)  # another lane's failure closed the engine under this batch
        self._proved = self._proved or opened == self._opened
        return result

    def _current(self) -> tuple[FrameRunner, int]:
        with self._changing:
            if self.down is not None:
                raise EngineDownError(f"The engine {self.name} is down: {self.down}", "The service must be started again.")
            return self._runner, self._opened

    def _reopen(self, opened: int, error: Exception) -> bool:
        """Opens the engine again after a batch failed on its `opened`th opening; False if another lane has done so already."""
        with self._changing:
            if opened != self._opened or self.down is not None:
                return False
            LOG.error("The engine %s failed: %s", self.name, first_line(error), exc_info=error)
            if not self._proved:
                self._give_up(f"it failed again after it was opened again: {first_line(error)}")
                return True
            try:
                self._runner.close()
                self._runner = self._open()
            except Exception as cause:  # whatever a broken library raises
                self._give_up(f"it could not be opened again: {first_line(cause)}")
                return True
            self._opened += 1
            self._proved = False
        LOG.warning("The engine %s was opened again.", self.name)
        return True

    def _give_up(self, why: str) -> None:
        self.down = why
        LOG.critical("The engine %s is down: %s", self.name, why)


def _run_batch(runner: FrameRunner, frames: Sequence[Frame], kind: Kind) -> BatchResult:
    began = time.perf_counter()
    if kind == "logits":
        values = list(runner.logits(frames))
        return _checked(frames, BatchResult(values, 0.0, time.perf_counter() - began))
    ticket = runner.submit(frames)
    submitted = time.perf_counter()
    labels = runner.result(ticket)
    return _checked(frames, BatchResult(labels, submitted - began, time.perf_counter() - submitted))


def _checked(frames: Sequence[Frame], result: BatchResult) -> BatchResult:
    if len(result.values) != len(frames):
        raise DeployError(f"The engine gave {len(result.values)} results for {len(frames)} frames.")
    return result
