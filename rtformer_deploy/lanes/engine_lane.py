"""The engine part of a lane: it runs on its own stream, from pinned memory to pinned memory, with CUDA graphs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError
from .buffers import TensorBuffers
from .contexts import BatchContexts
from .engine import ExecutionContext
from .graphs import LaneGraph, LaneGraphs
from .request import LaneWork, Step
from .shared import LaneShare


class EngineLane:
    """Implements `EngineSession` and `DeviceTimed` with execution contexts on its own stream.

    Everything a request needs lives as long as the lane: buffers and events are created here, and freed once all lanes are closed. Any
    thread may use it, one at a time: each call makes the GPU's primary context current and restores the caller's context afterwards. If
    an error breaks the GPU's context, this lane and all lanes that share it fail at once with EngineError.
    """

    def __init__(self, share: LaneShare) -> None:
        self._share = share
        self._cuda = share.cuda
        info = share.engine.info
        with share.current() as gpu:
            self._stream = gpu.create_stream()
            self._handle = int(self._stream.handle)
            self._begin, self._end = (gpu.create_event(self._cuda.EventOptions(timing_enabled=True)) for _ in range(2))
            self._done = gpu.create_event()
            self._graphs = LaneGraphs(self._stream, share.say) if share.capture else None
            first = share.engine.create_context()
            self._source, self._target = (
                TensorBuffers(self._cuda, gpu, self._stream, (info.batch[2], *map(int, spec.shape[1:])), spec.dtype)
                for spec in (info.inputs[0], info.outputs[0])
            )
            tensors = {info.inputs[0].name: self._source, info.outputs[0].name: self._target}
            self._contexts: BatchContexts | None = BatchContexts(share.engine, first, tensors, self._graphs, share.say)
            self._source.fill(0, self._stream)  # what pads a batch is read too
        self._closed = False
        self._busy = False  # work may be in flight that nobody has waited for
        self._finish: Callable[[], Any] | None = None
        share.opened()
        share.health.watch(self)

    @property
    def share(self) -> LaneShare:
        """What all lanes of the runner share."""
        return self._share

    @property
    def input(self) -> NDArray[np.floating]:
        """The engine's input for `start`, of its own type, in pinned host memory. It is allocated on first use."""
        if self._closed:
            source = self._share.engine.info.inputs[0]
            return np.empty((0, *map(int, source.shape[1:])), source.dtype)
        with self._at_work():
            return self._source.array

    def start(self, batch: int) -> None:
        with self._at_work(), self._at_rest_if_refused():
            self._come_to_rest()
            self._finish = None
            self._open_contexts().use(batch)
            work = self._work(("engine", batch), f"the engine at batch {batch}", [self._execute], self._copy_input, batch)
            self._copy_input()
            graph = self._graph(work)
            self._stream.record(self._begin)
            self._launch(graph, work)
            self._stream.record(self._end)
            self._target.to_host(self._stream)
            self._stream.record(self._done)
            self._finish = lambda: self._target.array[:batch]

    def wait(self) -> NDArray[Any]:
        output: NDArray[Any] = self.take()
        return output

    def device_ms(self) -> float:
        """The GPU's time for the last `start` that was waited for, in ms, without the copies."""
        return float(self._end - self._begin)

    def synchronize(self) -> None:
        """Waits for the started work; may be called again."""
        self._finish_function()
        with self._at_work():
            self._wait()

    def take(self) -> Any:
        """Waits for the started work and returns its result; may be called again."""
        finish = self._finish_function()
        with self._at_work():
            self._wait()
            return finish()

    def with_context(self, change: Callable[[ExecutionContext], None]) -> None:
        """Calls `change` with the execution context that ran last, while nothing is in flight."""
        with self._at_work():
            self._come_to_rest()
            change(self._open_contexts().current)
            self._busy = False

    def close(self) -> None:
        """Waits for work in flight. The last lane to close frees the memory of all. On a broken GPU nothing is waited for or freed."""
        if self._closed:
            return
        try:
            with self._at_work():
                self._busy = True
                self._come_to_rest()
                self._closed, self._finish = True, None
                self._share.closed(self._free)
        except EngineError:
            if not self._share.health.dead:
                raise
            self._closed = True  # freeing memory of a broken context can block for ever, so none is freed

    def _free(self) -> None:
        """Drops the contexts, then frees what they use. Nothing is in flight in any lane."""
        self._contexts = None
        if self._graphs is not None:
            self._graphs.drop()
        for buffers in (self._source, self._target):
            buffers.close(self._stream)
        for part in (self._begin, self._end, self._done, self._stream):
            part.close()

    # The steps of a request.

    def _copy_input(self) -> None:
        self._source.to_device(self._stream)

    def _copy_output(self) -> None:
        self._target.to_host(self._stream)

    def _execute(self) -> None:
        self._open_contexts().current.execute(self._handle)

    def _work(self, key: Hashable, name: str, steps: Sequence[Step], refeed: Step, batch: int, maps: Sequence[slice] = ()) -> LaneWork:
        """See LaneWork."""
        return LaneWork(key, name, self._stream, steps, refeed, self._rest, self._source, self._target, batch, self._share.frames, maps)

    def _at_work(self) -> AbstractContextManager[Any]:
        """Makes the GPU current. If an error in the block broke the GPU, every lane fails."""
        return _AtWork(self._share, self._probe)

    def _probe(self) -> None:
        with self._share.current():
            self._done.is_done  # noqa: B018

    @contextlib.contextmanager
    def _at_rest_if_refused(self) -> Iterator[None]:
        """If only part of a request could be enqueued, waits for that part, since it may read the caller's memory."""
        try:
            yield
        except Exception:
            with contextlib.suppress(Exception):  # the error that counts is the first
                self._rest()
            raise

    def _come_to_rest(self) -> None:
        """Call before memory is written again. Work is in flight only if a request was interrupted or failed half way."""
        if self._busy:
            self._rest()
        self._busy = True

    def _finish_function(self) -> Callable[[], Any]:
        """The function that makes the result of the started work."""
        if self._finish is None:
            raise EngineError("Nothing was started, so there is nothing to wait for.")
        return self._finish

    def _wait(self) -> None:
        self._share.health.wait(self._done)
        self._busy = False

    def _open_contexts(self) -> BatchContexts:
        assert not self._closed, "the lane was closed"
        assert self._contexts is not None
        return self._contexts

    def _rest(self) -> None:
        self._stream.record(self._done)
        self._share.health.wait(self._done)

    def _graph(self, work: LaneWork) -> LaneGraph | None:
        return None if self._graphs is None else self._graphs.prepare(work.key, work.name, work, work.batch)

    def _launch(self, graph: LaneGraph | None, work: LaneWork) -> None:
        if graph is None:
            work.enqueue()
        else:
            graph.launch(self._stream, work)


class _AtWork:
    """See `EngineLane._at_work`: the GPU is current within the watch over its health."""

    __slots__ = ("_current", "_watch")

    def __init__(self, share: LaneShare, probe: Callable[[], object]) -> None:
        self._watch, self._current = share.health.watching(probe), share.current()

    def __enter__(self) -> Any:
        self._watch.__enter__()
        try:
            return self._current.__enter__()
        except Exception as error:  # a thread's first call into a broken context
            self._watch.__exit__(type(error), error, None)
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._current.__exit__(kind, error, trace)
        self._watch.__exit__(kind, error, trace)
