"""Small videos, made with PyAV: frames of known colours at known times, with sound, a rotation or damage if asked for."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

BASE = Fraction(1, 12800)
SIZE = (48, 64)  # (H, W)
RATE = 16000


def ticks(count: int, step: float = 0.04) -> list[Fraction]:
    """`count` times, `step` seconds apart, in whole ticks of BASE."""
    return [round(Fraction(step) * index / BASE) * BASE for index in range(count)]


def picture(index: int, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """A frame whose colours tell its index: the left half is red 10 * index, a band at the top is blue."""
    frame = np.full((*size, 3), 40, np.uint8)
    frame[:, : size[1] // 2, 0] = 10 * index % 250
    frame[: size[0] // 4, :, 2] = 200
    return frame


def write_clip(
    path: Path,
    times: Sequence[Fraction],
    size: tuple[int, int] = SIZE,
    *,
    sound: str | None = None,
    codec: str = "libx264",
    gop: int = 12,
    matrix: int = 2,
) -> Path:
    """A video with `picture(i)` at the i-th time; `sound` is the codec of a tone of the same length.

    `matrix` is that of the colours (ITU-T H.273), as the video says it; 2: it does not say.
    """
    with av.open(str(path), "w") as container:
        options = {"g": str(gop), "bf": "0", "crf": "10"} if codec == "libx264" else {}
        stream = container.add_stream(codec, rate=25, options=options)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base, stream.codec_context.colorspace = BASE, matrix
        tone = None if sound is None else _sound_stream(container, sound)
        for index, time in enumerate(times):
            frame = VideoFrame.from_ndarray(picture(index, size), format="rgb24")
            frame.pts, frame.time_base = round(time / BASE), BASE
            frame.duration = round(Fraction(1, 25) / BASE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if tone is not None:
            for packet in _tone(tone, float(times[-1]) + 0.04):
                container.mux(packet)
    return path


def _tone(stream: AudioStream, seconds: float) -> list[Packet[AudioStream]]:
    """A sine of 440 Hz, encoded."""
    wave = (8000 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * RATE)) / RATE)).astype(np.int16)
    frame = AudioFrame.from_ndarray(wave[None], format="s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
    context = stream.codec_context
    resampler = av.AudioResampler(context.format, context.layout, RATE, context.frame_size or None)
    packets = []
    for part in [*resampler.resample(frame), *resampler.resample(None)]:
        packets += stream.encode(part)
    return packets + stream.encode(None)


def _sound_stream(container: OutputContainer, codec: str) -> AudioStream:
    stream = container.add_stream(codec, rate=RATE, layout="mono")
    assert isinstance(stream, AudioStream)
    return stream


def write_sound(path: Path, codec: str = "aac") -> Path:
    """A file of sound alone."""
    with av.open(str(path), "w") as container:
        for packet in _tone(_sound_stream(container, codec), 0.5):
            container.mux(packet)
    return path


def turn(path: Path, degrees: int) -> Path:
    """Writes into an MP4's video track that a player must turn the picture clockwise by a quarter (90) or by a half (180)."""
    one, minus = 0x10000, 0xFFFF0000
    matrices = {90: (0, one, 0, minus, 0, 0), 180: (minus, 0, 0, 0, minus, 0), 270: (0, minus, 0, one, 0, 0)}
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40  # version 0: flags, times, id, length, layer and volume come before the matrix
    data[place : place + 24] = b"".join(value.to_bytes(4, "big") for value in matrices[degrees])
    path.write_bytes(data)
    return path


def times_of(path: Path) -> list[Fraction]:
    """The time of each frame of a video."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [frame.pts * frame.time_base for frame in container.decode(stream) if frame.pts is not None and frame.time_base]


def pictures_of(path: Path) -> list[NDArray[np.uint8]]:
    """The frames of a video, RGB, as they are stored."""
    with av.open(str(path)) as container:
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in container.decode(video=0)]


def sound_of(path: Path, track: int = 0) -> list[bytes]:
    """The packets of a sound track; none if there is no sound."""
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return []
        return [bytes(packet) for packet in container.demux(container.streams.audio[track]) if packet.size]
