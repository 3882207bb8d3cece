"""A video file as a source: every frame, with its own time stamp."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import VideoError
from ..files import VIDEO_BYTES, check_readable
from ..machine import require
from .items import Counts, StreamFrame, Unread
from .nvdec import DecodedOnCpuError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

    from .nvdec import Nvdec
    from .pyav import Decoder

#: What a file that ends in this is taken for.
SUFFIXES = frozenset(
    {".3gp", ".asf", ".avi", ".flv", ".h264", ".h265", ".hevc", ".m2ts", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4"}
    | {".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv", ".y4m"}
)
#: FFmpeg may open this file and no other: a list in it that names other files or addresses is refused.
_OPTIONS = {"protocol_whitelist": "file"}


class VideoFile:
    """Implements `items.Source` over a video file. `every` N keeps one frame of N; `seconds` S ends after S seconds of the video.

    A file that is cut off gives what can be read and then raises VideoError.
    """

    def __init__(self, path: Path, name: str | None = None, *, every: int = 1, seconds: float | None = None) -> None:
        require("av", "video", f"Reading {path}")
        self.path, self.text, self.name = path, str(path), name or path.stem
        self.live = False
        self.total: int | None = None
        self.counts = Counts()
        self._every, self._seconds = every, seconds
        self._length: Fraction | None = None

    def items(self, stop: threading.Event, nvdec: Nvdec | None = None) -> Generator[StreamFrame | Unread]:
        check_readable(self.path, VideoError, "a video", VIDEO_BYTES)
        if self.path.stat().st_size == 0:
            raise VideoError(f"{self.text} is empty; it should be a video.")
        try:
            yield from self._opened(stop, nvdec)
        except DecodedOnCpuError:
            self.counts.read = self.counts.broken = 0
            yield from self._opened(stop, None)

    def _opened(self, stop: threading.Event, nvdec: Nvdec | None) -> Iterator[StreamFrame]:
        from .pyav import Decoder, open_input, video_stream

        with open_input(str(self.path), self.text, options=_OPTIONS, nvdec=nvdec) as container:
            stream = video_stream(container, self.text)
            self._length = _length(container, stream)
            self.total = -(-stream.frames // self._every) if stream.frames and self._seconds is None else None
            decoder = Decoder(container, stream, self.text, self.counts, self._every, nvdec)
            yield from self._frames(decoder, stop)

    def _frames(self, decoder: Decoder, stop: threading.Event) -> Iterator[StreamFrame]:
        last = Fraction(-1)
        for made in decoder.frames():
            if made.time is None:
                raise VideoError(
                    f"{self.text} has no time stamps.", "Put it into a container that has them: ffmpeg -r FPS -i IN -c copy OUT.mp4"
                )
            if stop.is_set() or (self._seconds is not None and made.time >= self._seconds):
                return
            last = made.time + (made.length or 0) * self._every
            yield StreamFrame(made.picture, self.name, made.index, made.time, made.base, made.length, made.pixel)
        self._check_whole(last)

    def _check_whole(self, last: Fraction) -> None:
        """Raises VideoError if no frame could be decoded, or if the frames end well before the stream does."""
        counts = self.counts
        if not counts.read:
            raise VideoError(f"No frame of {self.text} can be decoded.")
        length = self._length
        if length is not None and last < length - max(Fraction(1), length / 50):
            end = f"{float(max(last, Fraction(0))):.1f} s of {float(length):.1f} s"
            raise VideoError(f"{self.text} is cut off: it could be read to {end}, {counts.read} frames.")


def _length(container: InputContainer, stream: VideoStream) -> Fraction | None:
    """How long the video is by its file's header, in seconds; None if that is not known of the video alone."""
    if stream.duration is not None and stream.time_base is not None:
        return stream.duration * stream.time_base
    if container.duration is not None and not container.streams.audio:
        return Fraction(container.duration, 1_000_000)
    return None
