"""A loop's results into sinks: drawing and writing go on in threads of their own, in order, while the engine works."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from types import FrameType

from ..types import Frame
from .items import Source
from .loop import Event, Loop
from .overlap import overlap
from .result import Result
from .sinks import Sink, Written

#: Sees every result before it is drawn, in one thread.
Watch = Callable[[Source, Result], None]


def record(loop: Loop, sinks: Mapping[str, Sink], watch: Watch | None = None) -> Generator[tuple[Event, Written | None]]:
    """Runs a loop; `sinks` are by the sources' names. Yields each event and what its sink made of it; None for a video's frame.

    If the run fails, or the iterator is closed early, sinks remove what is not finished.
    """
    stages = loop.stages

    def draw(event: Event) -> tuple[Event, Frame | None]:
        if event.result is None:
            return event, None
        with stages.measure("draw"):
            if watch is not None:
                watch(event.source, event.result)
            return event, sinks[event.source.name].draw(event.result)

    def write(drawn: tuple[Event, Frame | None]) -> tuple[Event, Written | None]:
        event, drawing = drawn
        sink = sinks[event.source.name]
        with stages.measure("encode"):
            if event.item is not None and event.result is not None:
                return event, sink.write(event.item, event.result, drawing)
            return event, sink.end() if event.unread is None else sink.unread(event.unread)

    finished = False
    try:
        with contextlib.closing(loop.events()) as events, contextlib.closing(overlap(events, draw, "draw")) as drawings:
            yield from overlap(drawings, write, "encode")
        finished = True
    finally:
        if not finished:
            for sink in sinks.values():
                sink.abort()


@contextlib.contextmanager
def stopped_by_signals(stop: Callable[[], object]) -> Iterator[threading.Event]:
    """Calls `stop` at the first Ctrl-C or SIGTERM, instead of ending the program; a second one ends it. Gives whether one came."""
    came = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if came.is_set():
            raise KeyboardInterrupt
        came.set()
        stop()

    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield came
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
