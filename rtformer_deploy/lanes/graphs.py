"""CUDA graphs of a lane: captured once a shape, and trusted only after a replay has been compared with a run without the graph."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import one_line
from ..types import Say

#: A graph's replay may differ from the run without it by this share of what another input changes: kernels that add in any order do.
TOLERANCE = 0.01
GRAPHS = 16
_TRIES = 3


class Work(Protocol):
    """What a graph holds, and how to try it out on two inputs. Called with nothing in flight, the device's context current."""

    def enqueue(self) -> None:
        """Enqueues it, over memory that stays where it is."""
        ...

    def feed(self, *, other: bool) -> None:
        """Sets its input: the request's own, or another one."""
        ...

    def spoil(self) -> None:
        """Enqueues nonsense into its outputs, so that a run that writes nothing shows."""
        ...

    def read(self) -> Sequence[NDArray[Any]]:
        """Waits; copies of its outputs, the engine's first."""
        ...


@dataclass(slots=True)
class _Entry:
    seen: bool = False
    graph: Any = None
    batch: int = 0
    tries: int = 0
    refusal: str | None = None  # why the first capture failed


class LaneGraphs:
    """The graphs of one stream, at most GRAPHS; the one that has not been used longest goes first. `say` takes what could not be done.

    The first request of a shape runs without a graph and only the second one captures, so a frame size that comes once costs nothing.
    """

    def __init__(self, stream: Any, say: Say) -> None:
        self._stream, self._say = stream, say
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()

    def prepare(self, key: Hashable, name: str, work: Work, batch: int) -> Any:
        """The graph to launch for the work, whose input is fed; None: it is to be enqueued.

        `name` says in a note what it is, `batch` what the engine's execution context is set for.
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
        """Gives up every graph: memory that they hold the addresses of is about to go."""
        while self._entries:
            _close(self._entries.popitem()[1])

    def _capture(self, entry: _Entry, name: str, work: Work) -> None:
        """Warms up, captures and tries the graph out; if one of them fails, `entry` stays without a graph.

        A capture that failed is tried once more with the next request. If it fails again, a note gives the first reason.
        """
        work.enqueue()  # an engine settles what a new shape needs in its first run, which cannot be captured
        mine = work.read()
        try:
            graph = self._captured(work)
        except Exception as error:
            work.read()  # an error that broke the GPU and not the capture alone shows here
            if entry.refusal is None:
                entry.refusal = one_line(error)
                return
            entry.tries = _TRIES
            self._say(f"CUDA graphs: {name} could not be captured and runs without: {entry.refusal}")
            return
        entry.tries += 1
        why = self._doubt(graph, work, mine)
        if why is None:
            entry.graph = graph
            return
        graph.close()
        if entry.tries == _TRIES:
            self._say(f"CUDA graphs: {name} runs without: {why}")

    def _captured(self, work: Work) -> Any:
        builder = self._stream.create_graph_builder()
        try:
            builder.begin_building("thread_local")  # other threads may allocate and wait meanwhile
            work.enqueue()
            graph = builder.end_building().complete()
        except BaseException:
            # An invalidated capture is ended by `close` alone, which raises that the capture is invalid. The first error says why.
            for end in (builder.end_building, builder.close):
                with contextlib.suppress(Exception):
                    end()
            raise
        builder.close()
        return graph

    def _doubt(self, graph: Any, work: Work, mine: Sequence[NDArray[Any]]) -> str | None:
        """Why the graph is not to be trusted (None: it is). Another input must give another output, the one of a run without it."""
        work.feed(other=True)
        try:
            work.enqueue()
            wanted = work.read()
            work.spoil()
            graph.launch(self._stream)
            replayed = work.read()
        finally:
            work.feed(other=False)
        changes = [_distance(*pair) for pair in zip(mine, wanted, strict=True)]
        errors = [_distance(*pair) for pair in zip(replayed, wanted, strict=True)]
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
