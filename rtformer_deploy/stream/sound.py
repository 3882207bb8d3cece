"""A video's sound on its way to an MP4: copied as it is if MP4 holds its kind, else encoded as AAC. Times are kept."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import av
import av.error
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream

#: Sound that MP4 holds and players know.
MP4_SOUND = frozenset({"aac", "ac3", "alac", "eac3", "flac", "mp3", "opus"})

_AAC_RATES = frozenset({8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000})

#: A packet with its time in seconds and the place of its stream.
Timed: TypeAlias = "tuple[Fraction, int, Packet[Any]]"


def sound_tracks(path: Path) -> list[int]:
    """The places of a video's sound tracks, among its streams, that can be copied or decoded."""
    with av.open(str(path), options={"protocol_whitelist": "file"}) as container:
        return [stream.index for stream in container.streams.audio if stream.codec_context is not None]


def recoded(path: Path) -> tuple[str, ...]:
    """The kinds of sound in a video that MP4 does not hold."""
    with av.open(str(path), options={"protocol_whitelist": "file"}) as container:
        return tuple(sorted({stream.codec_context.name for stream in container.streams.audio if stream.codec_context} - MP4_SOUND))


def sound_packets(container: InputContainer, index: int, final: OutputContainer, end: Fraction) -> Iterator[Timed]:
    """The sound track at `index`, up to `end` in seconds, as packets of a new stream of `final`, made here at once.

    The container must be for this track alone: packets of its other streams are read and forgotten.
    """
    stream = container.streams[index]
    assert isinstance(stream, AudioStream)
    shift = -Fraction(container.start_time or 0, av.time_base)
    if stream.codec_context.name in MP4_SOUND:
        return copied_packets(container, stream, final.add_stream_from_template(stream), shift, end)
    rate = stream.rate if stream.rate in _AAC_RATES else 48000
    made = final.add_stream("aac", rate=rate, layout="mono" if stream.channels == 1 else "stereo")
    assert isinstance(made, AudioStream)
    return _encoded_packets(container, stream, made, shift, end)


def copied_packets(
    container: InputContainer, stream: Stream, copied: Stream, shift: Fraction, end: Fraction | None = None
) -> Iterator[Timed]:
    """A stream's packets for another container; `shift`, in seconds, is added to their times."""
    base = stream.time_base
    assert base is not None
    ticks = round(shift / base)
    for packet in container.demux(stream):
        if packet.dts is None or packet.pts is None:
            continue
        time = (packet.dts + ticks) * base
        if end is not None and time > end:
            return
        packet.dts, packet.pts, packet.stream = packet.dts + ticks, packet.pts + ticks, copied
        yield time, copied.index, packet


def _encoded_packets(container: InputContainer, stream: AudioStream, made: AudioStream, shift: Fraction, end: Fraction) -> Iterator[Timed]:
    context = made.codec_context
    resampler = AudioResampler(context.format, context.layout, context.rate, context.frame_size or None)
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.error.FFmpegError:  # a damaged packet of sound is left out
            continue
        for frame in frames:
            base = frame.time_base or Fraction(1, frame.rate)
            frame.pts = round(((frame.pts or 0) * base + shift) / base)
            if frame.pts * base > end:
                break
            for part in resampler.resample(frame):
                yield from _timed(made.encode(part), made)
    for part in resampler.resample(None):
        yield from _timed(made.encode(part), made)
    yield from _timed(made.encode(None), made)


def _timed(packets: list[Packet[AudioStream]], made: AudioStream) -> Iterator[Timed]:
    for packet in packets:
        base = packet.time_base or Fraction(1, made.rate)
        yield (packet.dts or 0) * base, made.index, packet
