"""PyAV: containers to frames and their time stamps. Rotation is applied; a frame that cannot be decoded is counted and passed over."""

from __future__ import annotations

import contextlib
import heapq
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from ..errors import ImageError, VideoError, first_line
from ..image.decode import MAX_PIXELS
from ..lanes.surfaces import GpuFrame
from ..types import Frame
from .items import TICK, Counts
from .nvdec import Nvdec, NvdecPictures

#: Time-outs for what is not a file, in seconds: to open it, and to wait for the next packet.
Timeout = tuple[float, float]

_NO_TIMESTAMPS = 0x80  # AVFMT_NOTIMESTAMPS
_ATTACHED_PICTURE = av.stream.Disposition.attached_pic


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """A decoded frame: RGB, upright; `time` since the container's start, in seconds (None: it has no time stamp). See `StreamFrame`."""

    picture: Frame | GpuFrame
    index: int
    time: Fraction | None
    base: Fraction
    length: Fraction | None
    pixel: Fraction


def open_input(
    place: str,
    text: str,
    *,
    form: str | None = None,
    options: Mapping[str, str] | None = None,
    timeout: Timeout | None = None,
    nvdec: Nvdec | None = None,
) -> InputContainer:
    """Opens a file, an address or a device for reading; `text` is what errors call it. Raises VideoError with the reason.

    With `nvdec` the GPU decodes what it can; what it cannot, the CPU does.
    """
    began = time.monotonic()
    try:
        with contextlib.nullcontext() if nvdec is None else nvdec.current():
            hwaccel = None if nvdec is None else nvdec.hwaccel()
            return av.open(place, format=form, options=dict(options or {}), timeout=timeout, hwaccel=hwaccel)
    except av.error.FFmpegError as error:
        late = timeout is not None and time.monotonic() - began >= timeout[0]
        why = "no answer" if late else reason(error)
        raise VideoError(f"Cannot open {text}: {why}{f' in {timeout[0]:g} s' if late and timeout else ''}.") from error
    except (OSError, ValueError) as error:
        raise VideoError(f"Cannot open {text}: {first_line(error)}.") from error


def reason(error: av.error.FFmpegError) -> str:
    """Why FFmpeg stopped, in a few words."""
    if isinstance(error, av.error.ExitError):
        return "no answer"
    if isinstance(error, av.error.InvalidDataError):
        return "it is damaged, or not a video"
    return error.strerror or first_line(error)


def video_stream(container: InputContainer, text: str) -> VideoStream:
    """The container's first video stream. The picture on a song's cover is none. Raises VideoError if there is none."""
    for stream in container.streams.video:
        if not stream.disposition & _ATTACHED_PICTURE:
            if stream.codec_context is None:
                raise VideoError(f"{text} is coded in a way that cannot be decoded here.")
            if not stream.codec_context.is_hwaccel:  # each thread would take a surface, and NVDEC has 32
                stream.thread_type = "AUTO"
            return stream
    kinds = sorted({stream.type for stream in container.streams})
    raise VideoError(f"{text} holds no video" + (f", only {' and '.join(kinds)}." if kinds else "."))


def pixel_shape(stream: VideoStream) -> Fraction:
    """The width of a stored pixel over its height; 1 if the file does not say."""
    shape = stream.sample_aspect_ratio
    return Fraction(shape) if shape else Fraction(1)


class Decoder:
    """A video stream's frames in order. `every` N: only each N-th is converted and given; `index` counts all, broken ones too.

    Time stamps are counted from where the container's time begins. `nvdec` is what the container was opened with; `frames` raises
    DecodedOnCpuError if it turns out at the first frame that it should be opened without.
    """

    def __init__(
        self, container: InputContainer, stream: VideoStream, text: str, counts: Counts, every: int = 1, nvdec: Nvdec | None = None
    ) -> None:
        self._container, self._stream, self._text, self._counts, self._every = container, stream, text, counts, every
        self._pixel = pixel_shape(stream)
        self._start = Fraction(container.start_time or 0, av.time_base)
        self._expected = Expected(stream.codec_context.name)
        self._reformatter = VideoReformatter()
        self._on_gpu = NvdecPictures(nvdec, text, stream.codec_context) if nvdec is not None and nvdec.usable else None
        self._stamped = not container.format.flags & _NO_TIMESTAMPS  # FFmpeg's are an assumed rate
        self._index = 0

    def frames(self) -> Iterator[Decoded]:
        """Raises VideoError if the container cannot be read any further, or if a frame is too large."""
        for packet in self._packets():
            for picture in self._decode(packet):
                self._pass_over(self._expected.lost_before(picture.pts) + picture.is_corrupt)
                if picture.is_corrupt:
                    continue
                if self._index % self._every == 0:
                    began = time.monotonic()
                    decoded = self._convert(picture)
                    self._counts.busy += time.monotonic() - began
                    yield decoded
                self._index += 1
                self._counts.read += 1
        self._pass_over(self._expected.lost_before(None))

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError as error:
                raise VideoError(f"{self._text} cannot be read to its end: {reason(error)}.") from error
            if packet is None:
                return
            yield packet

    def _decode(self, packet: Packet[VideoStream]) -> list[VideoFrame]:
        """The frames that are ready once the packet is sent: with several threads, those of earlier packets."""
        began = time.monotonic()
        tracked = self._expected.send(packet)
        try:
            return list(packet.decode())
        except av.error.EOFError:
            return []
        except av.error.FFmpegError:
            self._pass_over(not tracked)
            return []
        finally:
            self._counts.busy += time.monotonic() - began

    def _pass_over(self, frames: int) -> None:
        self._counts.broken += frames
        self._index += frames

    def _convert(self, picture: VideoFrame) -> Decoded:
        if picture.width * picture.height > MAX_PIXELS:
            raise VideoError(f"A frame of {self._text} is {picture.width}x{picture.height}; at most {MAX_PIXELS:,} pixels are decoded.")
        turns = round(picture.rotation / 90) % 4  # counter-clockwise, as FFmpeg counts
        pixel = 1 / self._pixel if turns % 2 else self._pixel
        base = picture.time_base or self._stream.time_base or TICK
        length = picture.duration * base if picture.duration else None
        return Decoded(self._upright(picture, turns), self._index, self._time(picture.pts, base), base, length, pixel)

    def _upright(self, picture: VideoFrame, turns: int) -> Frame | GpuFrame:
        """The picture in RGB, turned by `turns` quarters: on the GPU if it was decoded there and can stay, otherwise in host memory."""
        try:
            frame = None if self._on_gpu is None else self._on_gpu.frame(picture, turns)
            if frame is not None:
                return frame
            rgb = self._reformatter.reformat(picture, format="rgb24").to_ndarray()  # copies a picture that is on the GPU
        except (av.error.FFmpegError, ImageError) as error:
            raise VideoError(f"A frame of {self._text} cannot be converted to RGB: {first_line(error)}") from error
        return np.ascontiguousarray(np.rot90(rgb, turns), np.uint8)

    def _time(self, pts: int | None, base: Fraction) -> Fraction | None:
        return None if pts is None or not self._stamped else (pts - round(self._start / base)) * base


class Expected:
    """The time stamps of packets whose frames have not come yet. Frames come in the order of time, so an earlier one left is lost.

    Packets before the first key frame are not expected to give frames. VP8 and VP9 have packets that never do; they are not tracked.
    """

    def __init__(self, codec: str) -> None:
        self._tracks, self._began = codec not in ("vp8", "vp9"), False
        self._waiting: list[int] = []

    def send(self, packet: Packet[VideoStream]) -> bool:
        """Notes a packet; whether its frame is expected."""
        self._began = self._began or packet.is_keyframe
        if not self._tracks or not self._began or packet.pts is None or packet.is_discard or not packet.size:
            return False
        heapq.heappush(self._waiting, packet.pts)
        return True

    def lost_before(self, pts: int | None) -> int:
        """How many frames should have come before the one at `pts`, which has come; None: before the end."""
        lost = 0
        while self._waiting and (pts is None or self._waiting[0] <= pts):
            lost += heapq.heappop(self._waiting) != pts
        return lost
