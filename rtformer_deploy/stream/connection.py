"""One connection to a camera or an address, read in a thread of its own. It holds the newest frame, and can be given up."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol

from .nvdec import DecodedOnCpuError

if TYPE_CHECKING:
    from av.container import InputContainer

    from .items import Counts
    from .nvdec import Nvdec
    from .pyav import Decoded


class Opener(Protocol):
    """Opens what is read, to be decoded by `nvdec` if there is one; a context manager that closes it."""

    def __call__(self, *, nvdec: Nvdec | None = None) -> AbstractContextManager[InputContainer]: ...


class NothingNewError(Exception):
    """No frame came in the time that was given."""


class Connection:
    """Reads frames from what `opener` opens until it ends, fails or is given up; then closes it, in its own thread.

    A reader may hang in a driver or in the network, where nothing can wake it. Who waits for it gives it up, and it ends when it wakes.

    `finite` is set once it is open, if it has a length and `may_be_finite`: then each frame waits until it is taken. Otherwise the newest
    frame takes the place of the one before, which counts as dropped. `total` is a finite one's number of frames, if it is known.
    """

    def __init__(self, opener: Opener, text: str, counts: Counts, every: int, may_be_finite: bool, nvdec: Nvdec | None = None) -> None:
        self.finite = False
        self.total: int | None = None
        self._opener, self._text, self._counts, self._every, self._may_be_finite = opener, text, counts, every, may_be_finite
        self._nvdec = nvdec
        self._changed = threading.Condition()
        self._newest: Decoded | None = None
        self._skipped = 0
        self._ended, self._given_up = False, False
        self._error: BaseException | None = None
        self.thread = threading.Thread(target=self._read, name=f"reader of {text}", daemon=True)
        self.thread.start()

    def take(self, wait_s: float) -> Decoded | None:
        """The newest frame that was not taken yet; None once the connection has ended.

        Raises NothingNewError if none came in `wait_s`, and the reader's error.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self._ended, wait_s)
            newest, self._newest = self._newest, None
            self._counts.dropped += self._skipped
            self._skipped = 0
            self._changed.notify_all()
            if newest is not None:
                return newest
            if self._error is not None:
                raise self._error
            if self._ended:
                return None
            raise NothingNewError

    def give_up(self) -> None:
        """Wants no more frames. The reader closes what it opened as soon as it can."""
        with self._changed:
            self._given_up = True
            self._newest = None
            self._changed.notify_all()

    def _read(self) -> None:
        error: BaseException | None = None
        read, broken = self._counts.read, self._counts.broken
        try:
            try:
                self._receive(self._nvdec)
            except DecodedOnCpuError:
                self._counts.read, self._counts.broken = read, broken
                self._receive(None)
        except BaseException as caught:  # it belongs to whoever waits for frames
            error = caught
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def _receive(self, nvdec: Nvdec | None) -> None:
        """Opens the connection and passes frames on until it ends or nobody wants more."""
        from .pyav import Decoder, video_stream

        with self._opener(nvdec=nvdec) as container:
            stream = video_stream(container, self._text)
            self.finite = self._may_be_finite and bool(container.duration)
            self.total = -(-stream.frames // self._every) if self.finite and stream.frames else None
            decoder = Decoder(container, stream, self._text, self._counts, self._every, nvdec)
            for decoded in decoder.frames():
                if not self._put(decoded):
                    return

    def _put(self, decoded: Decoded) -> bool:
        """Whether somebody still wants frames."""
        with self._changed:
            if self.finite:
                self._changed.wait_for(lambda: self._newest is None or self._given_up)
            elif self._newest is not None and not self._given_up:
                self._skipped += 1
            if self._given_up:
                return False
            self._newest = decoded
            self._changed.notify_all()
            return True


class LiveClock:
    """Time stamps of a live source, in seconds since its first frame. They grow, whatever the sender's clock does.

    Differences are the sender's while its clock agrees with the wall's to `DRIFT` seconds. After a lost connection or a jump it is set
    anew by the wall's clock, so that time goes on where it should.
    """

    DRIFT = Fraction(1)
    STEP = Fraction(1, 1000)

    def __init__(self, base: Fraction) -> None:
        self._base = base
        self._began: Fraction | None = None
        self._offset: Fraction | None = None
        self._last: Fraction | None = None

    def reset(self) -> None:
        """Forgets the sender's clock: the connection is another one."""
        self._offset = None

    def time(self, sent: Fraction | None, now: float) -> Fraction:
        """The sender's time (None: it has none) and the wall's, both in seconds -> the frame's time, a multiple of `base`."""
        wall = Fraction(now)
        self._began = wall if self._began is None else self._began
        wall -= self._began
        time = wall
        if sent is not None:
            if self._offset is None or abs(sent + self._offset - wall) > self.DRIFT:
                self._offset = wall - sent
            time = sent + self._offset
        if self._last is not None:
            time = max(time, self._last + self.STEP)
        self._last = max(Fraction(0), round(time / self._base) * self._base)
        return self._last
