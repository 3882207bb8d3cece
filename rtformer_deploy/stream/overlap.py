"""Work on a stream of values in a thread of its own, in order, with a few values on the way at most."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")

ROOM = 2


def overlap(values: Iterable[A], work: Callable[[A], B], name: str, room: int = ROOM) -> Generator[B]:
    """Values -> what `work` gives for each, in order. `work` runs in one thread while the caller's thread makes the next values.

    At most `room` values are in `work` or wait for it. An error in `work` is raised here; what was begun then ends first.
    """
    pending: deque[Future[B]] = deque()
    thread = ThreadPoolExecutor(1, thread_name_prefix=name)
    try:
        for value in values:
            pending.append(thread.submit(work, value))
            while len(pending) > room or (pending and pending[0].done()):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        thread.shutdown(wait=True, cancel_futures=True)
