"""Frames of several sources on their way to one runner: a short queue for each. A full queue makes a file wait; a camera's forgets."""

from __future__ import annotations

import threading
from collections import deque

from .items import Item

#: Frames that wait for the runner, a file's. A live source's queue holds one, the newest.
ROOM = 4
_SLICE_S = 0.5  # how long the main thread waits at most before it sees a signal, which Windows does not wake it for


class ClosedInboxError(Exception):
    """Nobody takes frames any more."""


class Inbox:
    """Queues between threads that read and one that runs. Items of one source keep their order; sources take turns."""

    def __init__(self, lanes: int) -> None:
        self._lanes: list[deque[Item]] = [deque() for _ in range(lanes)]
        self._open = set(range(lanes))
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._next = 0
        self._closed = False

    def put(self, lane: int, item: Item) -> None:
        """Adds an item. A frame of a live source takes the place of the one that waits, which counts as dropped; others wait for room.

        Raises ClosedInboxError after `close`.
        """
        with self._changed:
            queue = self._lanes[lane]
            if item.frame is not None and item.source.live:
                if queue and queue[-1].frame is not None and queue[-1].source is item.source:
                    queue.pop()
                    item.source.counts.dropped += 1
            else:
                self._changed.wait_for(lambda: self._closed or len(queue) < ROOM)
            if self._closed:
                raise ClosedInboxError
            queue.append(item)
            self._changed.notify_all()

    def end(self, lane: int, error: BaseException | None = None) -> None:
        """Says that a lane gives no more items. With an error, `take` raises it once the lane's items are taken."""
        with self._changed:
            self._open.discard(lane)
            self._error = self._error or error
            self._changed.notify_all()

    def waiting(self) -> bool:
        """Whether `take` would return at once with an item."""
        with self._changed:
            return any(self._lanes)

    def take(self) -> Item | None:
        """The next item; None if all lanes have ended or the inbox was closed. Raises a lane's error."""
        with self._changed:
            while not (self._closed or any(self._lanes) or not self._open or self._error is not None):
                self._changed.wait(_SLICE_S)
            if self._closed:
                return None
            for step in range(len(self._lanes)):
                lane = (self._next + step) % len(self._lanes)
                if self._lanes[lane]:
                    self._next = lane + 1
                    self._changed.notify_all()
                    return self._lanes[lane].popleft()
            if self._error is not None:
                raise self._error
            return None

    def close(self) -> None:
        """Frees whoever waits; `put` raises and `take` gives None from now on."""
        with self._changed:
            self._closed = True
            for queue in self._lanes:
                queue.clear()
            self._changed.notify_all()
