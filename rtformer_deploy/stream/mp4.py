"""Frames with time stamps to an MP4 file that plays everywhere: H.264, yuv420p, BT.709, the index at the front.

While it is written, the file is playable up to the last frame whatever ends the program: it is fragmented, one fragment a frame, and
lies beside the target as NAME.XXXX.partial.mp4. At the end its packets are copied, with the sound, to the file that has the name.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import secrets
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
from av.container import InputContainer, OutputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, VideoReformatter
from av.video.stream import VideoStream

from ..errors import OutputError
from ..files import writing
from ..image.png import SOFTWARE
from ..types import Frame
from .items import StreamFrame
from .sound import copied_packets, sound_packets, sound_tracks

_FRAGMENTED = {"movflags": "frag_every_frame+empty_moov+default_base_moof", "fflags": "flush_packets"}
#: No frame waits in the encoder, so that a kill loses none, and none is moved in time (B-frames would).
_CODING = {"preset": "veryfast", "tune": "zerolatency", "crf": "20", "g": "60"}
_RATE = 25  # what x264 is told; the time stamps say when a frame is shown
_BT709 = 1


class Mp4Writer:
    """Writes one MP4 file from frames of one size; a context that fails leaves nothing behind, unless `keep` is set.

    `target` gets its name in `finish`. A side of odd length is made longer by one pixel, because yuv420p needs even ones. Raises
    OutputError if the file cannot be written; if `keep`, what was written so far stays and the error says where.
    """

    def __init__(self, target: Path, first: StreamFrame, *, keep: bool = False) -> None:
        self.target, self.frames = target, 0
        self.size = first.size
        self.partial = target.with_name(f"{target.stem[:200]}.{secrets.token_hex(2)}.partial.mp4")
        self._keep, self._base = keep, first.base
        self._first = self._last = self._whole = 0
        self._reformatter = VideoReformatter()
        with self._failing():
            self._file = _WholeWrites(self.partial)
            self._container: OutputContainer = av.open(self._file, "w", format="mp4", options=_FRAGMENTED)
            self._container.metadata["comment"] = SOFTWARE
            self._stream = self._add_stream(first)

    def add(self, item: StreamFrame) -> None:
        """Writes a frame at its own time. A time that is not after the last frame's becomes the next tick."""
        assert item.time is not None
        picture = VideoFrame.from_ndarray(even(item.frame), format="rgb24")
        picture = self._reformatter.reformat(picture, format="yuv420p", dst_colorspace=Colorspace.ITU709)
        pts = round(item.time / self._base)
        if self.frames:
            pts = max(pts, self._last + 1)
        else:
            self._first = pts
        self._last = pts
        picture.pts, picture.time_base = pts, self._base
        picture.duration = round(item.length / self._base) if item.length else 0
        with self._failing():
            self._container.mux(self._stream.encode(picture))
            self._whole = self._file.tell()
        self.frames += 1

    def finish(self, sound: Path | None = None) -> None:
        """Gives the file its name; `sound` is the video whose sound it gets, up to the last frame."""
        with self._failing():
            self._container.mux(self._stream.encode(None))
            self._container.close()
            self._whole = self._file.tell()
            self._file.close()
            with writing(self.target) as path:
                self._copy(path, sound)
        self.partial.unlink(missing_ok=True)

    def abort(self) -> None:
        """Ends without a file; what was written is removed, unless it is to be kept."""
        with contextlib.suppress(OSError, av.error.FFmpegError):
            self._container.close()
        self._file.close()
        if self._keep and self.frames:
            with contextlib.suppress(OSError):
                os.truncate(self.partial, self._whole)  # a part of a frame is at the end if the disk is full
        else:
            self.partial.unlink(missing_ok=True)

    def _add_stream(self, first: StreamFrame) -> VideoStream:
        stream = self._container.add_stream("libx264", rate=_RATE, options=_CODING)
        context = stream.codec_context
        context.height, context.width = even(first.frame).shape[:2]
        context.pix_fmt, context.time_base = "yuv420p", self._base
        context.sample_aspect_ratio = first.pixel
        context.colorspace = context.color_primaries = context.color_trc = context.color_range = _BT709  # range 1: studio
        return stream

    def _copy(self, path: Path, sound: Path | None) -> None:
        """Copies the packets of the video and of the sound to `path`, in the order of their times."""
        options = {"movflags": "+faststart", "movie_timescale": str(self._base.denominator)}  # when it begins is in the latter
        with contextlib.ExitStack() as stack:
            video = stack.enter_context(open_part(self.partial))
            tracks = [(stack.enter_context(open_part(sound)), index) for index in sound_tracks(sound)] if sound else []
            final = stack.enter_context(av.open(str(path), "w", format="mp4", options=options))
            final.metadata["comment"] = SOFTWARE
            shown = video.streams.video[0]
            assert shown.time_base is not None
            shift = self._first * self._base - (shown.start_time or 0) * shown.time_base
            end = self._last * self._base + Fraction(1, _RATE)
            flows = [copied_packets(video, shown, final.add_stream_from_template(shown), shift)]
            flows += [sound_packets(container, index, final, end) for container, index in tracks]
            for _, _, packet in heapq.merge(*flows, key=lambda timed: timed[:2]):
                final.mux(packet)

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """Turns the errors of the block into OutputError; FFmpeg's are OSErrors if the system refused."""
        try:
            yield
        except OutputError as error:
            raise OutputError(error.what, self._hint() or error.hint) from error.__cause__
        except OSError as error:
            raise OutputError(f"Cannot write {self.target}: {error.strerror or error}.", self._hint()) from error
        except (av.error.FFmpegError, ValueError) as error:
            raise OutputError(f"Cannot write {self.target}: {error}.", self._hint()) from error

    def _hint(self) -> str | None:
        return f"What was written before is in {self.partial}." if self._keep and self.frames else None


class _WholeWrites:
    """A new file that FFmpeg writes to: unbuffered, and a write that the system does in part is gone on with until it fails."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "xb", buffering=0)  # noqa: SIM115

    def write(self, data: bytes) -> int:
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]
        return len(data)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()


def is_our_video(path: Path) -> bool:
    """Whether a video was written by `Mp4Writer`; False for a file that cannot be read."""
    try:
        with av.open(str(path), options={"protocol_whitelist": "file"}) as container:
            return container.metadata.get("comment") == SOFTWARE
    except (av.error.FFmpegError, OSError, ValueError):
        return False


def refuse_foreign_video(path: Path) -> None:
    """Raises OutputError if a video would replace a file that `Mp4Writer` did not write."""
    if os.path.exists(path) and not is_our_video(path):
        raise OutputError(f"{path} exists and is no video of rtformer-deploy.", "Move it away, or choose another --output.")


def open_part(path: Path) -> InputContainer:
    """Opens a file of this machine that may name no other."""
    return av.open(str(path), options={"protocol_whitelist": "file"})


def even(frame: Frame) -> Frame:
    """A frame with sides of even length: the last row and column are repeated if needed."""
    height, width = frame.shape[:2]
    if height % 2 == 0 and width % 2 == 0:
        return np.ascontiguousarray(frame)
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
