"""A live source: the newest frame wins, a lost connection is made again, time stamps go on."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import VideoError
from ..image.reader import silent
from ..types import Say
from .connection import Connection, LiveClock, NothingNewError, Opener
from .items import TICK, Counts, StreamFrame, Unread

if TYPE_CHECKING:
    from .nvdec import Nvdec
    from .pyav import Decoded

_SLICE_S = 0.1  # how soon a stop is seen
_MOST_STUCK = 3  # readers that hang; no more are started


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """How a live source is read. `answer_s`: how long it may take to open, or be silent, before the connection counts as lost.

    `patience_s`: how long it is tried again before it is given up. `seconds`: the end, counted from the first frame (None: never).
    `stubborn`: it is also tried again if it cannot be opened the first time.
    """

    every: int = 1
    seconds: float | None = None
    answer_s: float = 10.0
    patience_s: float = 60.0
    backoff_s: tuple[float, float] = (0.5, 10.0)
    stubborn: bool = False
    say: Say = silent


class LiveSource:
    """Implements `items.Source` over connections, one after another; see `connection.Connection` for finite ones."""

    def __init__(self, text: str, name: str, opener: Opener, options: LiveOptions | None = None, *, may_be_finite: bool = False) -> None:
        self.text, self.name, self.live = text, name, True
        self.total: int | None = None
        self.counts = Counts()
        self._opener, self._options, self._may_be_finite = opener, options or LiveOptions(), may_be_finite
        self._clock = LiveClock(TICK)
        self._stuck: list[threading.Thread] = []
        self._first: float | None = None  # when the first frame came, and the last one
        self._heard: float | None = None
        self._away = False
        self._next_index = 0

    def items(self, stop: threading.Event, nvdec: Nvdec | None = None) -> Generator[StreamFrame | Unread]:
        began, tries = time.monotonic(), 0
        while not stop.is_set() and not self._over():
            heard = self._heard
            try:
                yield from self._connected(stop, nvdec)
                return
            except VideoError as error:
                if not self.live or (self._heard is None and not self._options.stubborn):
                    raise
                tries = 1 if self._heard != heard else tries + 1
                self._wait_to_try_again(error, began, tries, stop)

    def _connected(self, stop: threading.Event, nvdec: Nvdec | None) -> Iterator[StreamFrame]:
        """One connection's frames; returns when no more are wanted, and raises VideoError if the connection is lost."""
        self._refuse_more_stuck()
        self._clock.reset()
        first_index = self._next_index
        connection = Connection(self._opener, self.text, self.counts, self._options.every, self._may_be_finite, nvdec)
        try:
            while not stop.is_set() and not self._over():
                decoded = self._next(connection, stop)
                if decoded is None:
                    return
                self._note_frame(decoded)
                frame = self._stamped(decoded, connection, first_index)
                if self._options.seconds is not None and (frame.time or 0) >= self._options.seconds:
                    return
                yield frame
        finally:
            connection.give_up()
            connection.thread.join(_SLICE_S)
            if connection.thread.is_alive():
                self._stuck.append(connection.thread)

    def _next(self, connection: Connection, stop: threading.Event) -> Decoded | None:
        """The next frame; None if there are no more or no more are wanted. Raises VideoError if the connection is lost."""
        since = time.monotonic()
        while not stop.is_set() and not self._over():
            try:
                decoded = connection.take(_SLICE_S)
            except NothingNewError:
                if time.monotonic() - since > self._options.answer_s:
                    raise VideoError(f"{self.text} gave no frame in {self._options.answer_s:g} s.") from None
                continue
            if decoded is None and not connection.finite:
                raise VideoError(f"{self.text} has ended.")
            self.live, self.total = not connection.finite, connection.total
            return decoded
        return None

    def _stamped(self, decoded: Decoded, connection: Connection, first_index: int) -> StreamFrame:
        """The frame with its place and time in the source, whichever connection it came from."""
        index = first_index + decoded.index
        self._next_index = index + 1
        if connection.finite and decoded.time is not None:
            return StreamFrame(decoded.picture, self.name, index, decoded.time, decoded.base, decoded.length, decoded.pixel)
        stamp = self._clock.time(decoded.time, time.monotonic())
        return StreamFrame(decoded.picture, self.name, index, stamp, TICK, decoded.length, decoded.pixel)

    def _note_frame(self, decoded: Decoded) -> None:
        if self._away:
            height, width = decoded.picture.shape[:2]
            self._options.say(f"{self.text} is back: {width}x{height}.")
        self._heard, self._away = time.monotonic(), False
        self._first = self._first or self._heard

    def _over(self) -> bool:
        """Whether the seconds that were asked for have passed, if the source is live; its frames' times may be ahead of the clock."""
        seconds = self._options.seconds
        return self.live and seconds is not None and self._first is not None and time.monotonic() - self._first >= seconds

    def _wait_to_try_again(self, error: VideoError, began: float, tries: int, stop: threading.Event) -> None:
        """Waits, longer each time. Raises VideoError if the last frame is too long ago."""
        options = self._options
        silence = time.monotonic() - (self._heard or began)
        if silence > options.patience_s:
            raise VideoError(f"{error.what} It was tried again for {silence:.0f} s.", error.hint) from error
        if not self._away:
            self.counts.lost += 1
            options.say(f"{error.what} Trying again for {options.patience_s:g} s.")
        self._away = True
        first, most = options.backoff_s
        stop.wait(min(first * 2 ** min(tries - 1, 16), most))

    def _refuse_more_stuck(self) -> None:
        self._stuck = [thread for thread in self._stuck if thread.is_alive()]
        if len(self._stuck) >= _MOST_STUCK:
            raise VideoError(f"{self.text} does not answer, and {len(self._stuck)} earlier attempts still wait for it.")
