"""CUDA graphs of a lane: captured once for each shape, and used only after a replay matches a run without the graph."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError, one_line
from ..nvidia.graph_copies import GraphCopy
from ..types import Say
from .host_copies import HostCopy

#: A replay may differ from a run without the graph by this share of the change that another input causes. Kernels that add in no
#: fixed order do differ.
TOLERANCE = 0.01
GRAPHS = 16
_TRIES = 3


class Work(Protocol):
    """The work of one graph, and how to test the graph on two inputs. Nothing is in flight, and the device's context is current."""

    @property
    def copies(self) -> Sequence[HostCopy]:
        """The copies from and to pinned memory, which may be other memory in each request."""
        ...

    def enqueue(self) -> None:
        """Enqueues the work. All of its memory but the pinned side of `copies` must not move."""
        ...

    def capture(self) -> list[GraphCopy]:
        """Enqueues the work into a capture and returns `copies` as they are in the graph."""
        ...

    def feed(self, *, other: bool) -> None:
        """Sets the input: the request's own, or another one. With the other one, `copies` use other pinned memory."""
        ...

    def spoil(self) -> None:
        """Enqueues overwriting the outputs with nonsense, so that a run that writes nothing is noticed."""
        ...

    def read(self) -> Sequence[NDArray[Any]]:
        """Waits and returns copies of the outputs, the engine's first."""
        ...


@dataclass(frozen=True, slots=True)
class LaneGraph:
    """A graph that can be launched. `copies` are those of its work; `definition` is what it was made of, which they belong to."""

    graph: Any
    definition: Any
    copies: Sequence[GraphCopy]

    def aim(self, work: Work) -> None:
        """Makes the copies use the pinned memory that the work's copies use now. Raises EngineError if CUDA refuses."""
        for captured, copy in zip(self.copies, work.copies, strict=True):
            captured.aim(self.graph, copy.address)

    def launch(self, stream: Any, work: Work) -> None:
        """Launches it for this request of the work."""
        self.aim(work)
        self.graph.launch(stream)

    def close(self) -> None:
        self.graph.close()


@dataclass(slots=True)
class _Entry:
    seen: bool = False
    graph: LaneGraph | None = None
    batch: int = 0
    tries: int = 0
    refusal: str | None = None  # why the first capture failed


class LaneGraphs:
    """The graphs of one stream, at most GRAPHS; the least recently used one is dropped first. `say` receives notes about failures.

    The first request of a shape runs without a graph and only the second one captures, so a frame size that comes once costs nothing.
    """

    def __init__(self, stream: Any, say: Say) -> None:
        self._stream, self._say = stream, say
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()

    def prepare(self, key: Hashable, name: str, work: Work, batch: int) -> LaneGraph | None:
        """Returns the graph to launch for this work, or None if the work has to be enqueued. The input is already set.

        `name` is the work's name in notes, `batch` the batch of the engine's execution context.
        """
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(batch=batch)
        self._entries.move_to_end(key)
        while len(self._entries) > GRAPHS:
            _close(self._entries.popitem(last=False)[1])
        if entry.graph is None and entry.seen and entry.tries < _TRIES:
            self._capture(entry, name, work)
        entry.seen = True
        return entry.graph

    def holds(self, batch: int) -> bool:
        """Whether there is a graph that was captured at this batch."""
        return any(entry.graph is not None and entry.batch == batch for entry in self._entries.values())

    def drop(self) -> None:
        """Drops every graph, because memory that they use is about to be freed."""
        while self._entries:
            _close(self._entries.popitem()[1])

    def _capture(self, entry: _Entry, name: str, work: Work) -> None:
        """Warms up, captures the graph and tests it. If any of this fails, `entry` has no graph.

        A capture that failed is tried once more with the next request. If it fails again, a note gives the first reason.
        """
        work.enqueue()  # an engine prepares for a new shape in its first run, which cannot be captured
        original = work.read()
        try:
            graph = self._capture_graph(work)
        except Exception as error:
            work.read()  # raises if the error broke the GPU and not only the capture
            if entry.refusal is None:
                entry.refusal = one_line(error)
                return
            entry.tries = _TRIES
            self._say(f"CUDA graphs: {name} could not be captured and runs without: {entry.refusal}")
            return
        entry.tries += 1
        try:
            why = self._doubt(graph, work, original)
        except BaseException:
            graph.close()
            raise
        if why is None:
            entry.graph = graph
            return
        graph.close()
        if entry.tries == _TRIES:
            self._say(f"CUDA graphs: {name} runs without: {why}")

    def _capture_graph(self, work: Work) -> LaneGraph:
        builder = self._stream.create_graph_builder()
        try:
            builder.begin_building("thread_local")  # other threads may allocate and wait meanwhile
            copies = work.capture()
            graph = LaneGraph(builder.end_building().complete(), builder.graph_definition, copies)
        except BaseException:
            # Only `close` ends an invalid capture, and it raises another error. The first error has the reason.
            for end in (builder.end_building, builder.close):
                with contextlib.suppress(Exception):
                    end()
            raise
        builder.close()
        return graph

    def _doubt(self, graph: LaneGraph, work: Work, original: Sequence[NDArray[Any]]) -> str | None:
        """Why the graph cannot be trusted, or None. A second input must change the output, and the replay must match a run without it."""
        try:
            try:
                work.feed(other=True)
            except Exception as error:  # a request must not fail because there is no memory to test its graph
                return f"it could not be tested: {one_line(error)}"
            work.enqueue()
            expected = work.read()
            work.spoil()
            try:
                graph.aim(work)
            except EngineError as error:
                return f"its copies cannot use other memory: {one_line(error)}"
            graph.launch(self._stream, work)
            replay = work.read()
        finally:
            work.feed(other=False)
        changes = [_distance(*pair) for pair in zip(original, expected, strict=True)]
        errors = [_distance(*pair) for pair in zip(replay, expected, strict=True)]
        if not 0 < changes[0] < np.inf:
            return "its output did not change with its input, so the replay could not be checked"
        if not all(error <= TOLERANCE * change for error, change in zip(errors, changes, strict=True)):
            return "the replay did not give what a run without the graph gives"
        return None


def _distance(first: NDArray[Any], second: NDArray[Any]) -> float:
    """The mean absolute difference."""
    return float(np.mean(np.abs(first.astype(np.float64) - second)))


def _close(entry: _Entry) -> None:
    if entry.graph is not None:
        entry.graph.close()
