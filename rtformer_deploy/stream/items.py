"""What flows from a source to the runner: frames with their time stamps, and the errors that a source goes on after."""

from __future__ import annotations

import threading
from collections.abc import Generator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol

from ..errors import DeployError
from ..lanes.surfaces import GpuFrame, on_host
from ..types import Frame

if TYPE_CHECKING:
    from .nvdec import Nvdec

#: The time base of sources that have none of their own, as in MPEG.
TICK = Fraction(1, 90_000)


@dataclass(frozen=True, slots=True, eq=False)
class StreamFrame:
    """A frame on its way: RGB uint8 (H, W, 3), upright. `picture` is the frame where it was made, on the GPU perhaps.

    `name` is what outputs are called; `index` counts the source's frames from 0, also those that were passed over. `time` is the
    seconds since the source began, a multiple of `base` (None: an image). `length` is how long the frame is shown, in seconds (None: not
    known); `pixel` is the width of a pixel over its height.
    """

    picture: Frame | GpuFrame
    name: str
    index: int
    time: Fraction | None = None
    base: Fraction = TICK
    length: Fraction | None = None
    pixel: Fraction = Fraction(1)

    @property
    def frame(self) -> Frame:
        """The frame in host memory."""
        return on_host(self.picture)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.picture.shape[0], self.picture.shape[1]


@dataclass(frozen=True, slots=True, eq=False)
class Unread:
    """One of several parts of a source that cannot be read: its index, and why."""

    index: int
    error: DeployError


@dataclass(slots=True)
class Counts:
    """What happened to a source's frames so far. Each field is written by one thread."""

    read: int = 0
    broken: int = 0  # could not be decoded and were passed over
    dropped: int = 0  # live: a newer frame came before the runner was free
    lost: int = 0  # live: how often the connection was lost
    busy: float = 0.0  # seconds of decoding


class Source(Protocol):
    """Where frames come from. Every kind passes tests/contract/test_source.py.

    `text` is what the user wrote, without a password; `name` what outputs are called. `live`: the newest frame wins, and frames that
    nobody took are dropped; it is final once the first item is out. `total` is how many frames there will be (None: not known).
    """

    text: str
    name: str
    live: bool
    total: int | None
    counts: Counts

    def items(self, stop: threading.Event, nvdec: Nvdec | None = None) -> Generator[StreamFrame | Unread]:
        """The frames in order, and an `Unread` for each part that cannot be read. Raises DeployError if nothing more can be read.

        Ends soon after `stop` is set. When the iterator is closed, everything that it opened is closed. `nvdec` decodes what it can
        (None: everything is decoded on the CPU).
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """One thing that a source gave: a frame or an error; neither, if the source has ended."""

    source: Source
    frame: StreamFrame | None = None
    unread: Unread | None = None
