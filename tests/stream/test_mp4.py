"""The MP4 that is written: plays everywhere, keeps times, colours and sound, survives a kill, and is whole or not there."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import BASE, picture, pictures_of, sound_of, ticks, times_of, write_clip

from rtformer_deploy.errors import OutputError
from rtformer_deploy.stream.items import TICK, StreamFrame
from rtformer_deploy.stream.mp4 import Mp4Writer, is_our_video
from rtformer_deploy.stream.sound import recoded
from rtformer_deploy.types import Frame


def stream_frames(times: Sequence[Fraction], size: tuple[int, int] = (48, 64), base: Fraction = BASE) -> Iterator[StreamFrame]:
    for index, time in enumerate(times):
        yield StreamFrame(picture(index, size), "clip", index, time, base, Fraction(1, 25))


def write(target: Path, frames: Iterator[StreamFrame], sound: Path | None = None) -> Path:
    first = next(frames)
    writer = Mp4Writer(target, first)
    writer.add(first)
    for frame in frames:
        writer.add(frame)
    writer.finish(sound)
    return target


def test_it_is_h264_in_yuv420p_with_the_index_at_the_front(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", stream_frames(ticks(10)))
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    assert b"moof" not in data
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.frames == 10
        assert stream.codec_context.color_range == 1
        assert stream.codec_context.colorspace == 1
    assert is_our_video(path)
    assert [each.name for each in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("base", [BASE, TICK, Fraction(1, 25), Fraction(1001, 30000)])
def test_uneven_times_are_kept_exactly(tmp_path: Path, base: Fraction) -> None:
    times = [base * step for step in (3, 4, 11, 12, 40, 41)]
    assert times_of(write(tmp_path / "a.mp4", stream_frames(times, base=base))) == times


def test_a_time_that_does_not_grow_becomes_the_next_tick(tmp_path: Path) -> None:
    times = [Fraction(0), 5 * BASE, 5 * BASE, 2 * BASE, 9 * BASE]
    assert times_of(write(tmp_path / "a.mp4", stream_frames(times))) == [0, 5 * BASE, 6 * BASE, 7 * BASE, 9 * BASE]


def test_colours_are_kept(tmp_path: Path) -> None:
    def flat(colour: tuple[int, int, int]) -> Frame:
        return np.full((48, 64, 3), colour, np.uint8)

    colours = [(128, 64, 128), (220, 20, 60), (0, 0, 142), (107, 142, 35)]
    frames = [StreamFrame(flat(colour), "a", index, index * BASE * 500, BASE) for index, colour in enumerate(colours)]
    seen = pictures_of(write(tmp_path / "a.mp4", iter(frames)))
    for frame, colour in zip(seen, colours, strict=True):
        assert np.abs(frame[24, 32].astype(int) - colour).max() <= 4


def test_an_odd_size_is_made_even_by_its_last_row_and_column(tmp_path: Path) -> None:
    [first, *_] = pictures_of(write(tmp_path / "a.mp4", stream_frames(ticks(3), (47, 63))))
    assert first.shape == (48, 64, 3)
    assert np.abs(first[-1].astype(int) - first[-2]).max() < 12


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "aac"), ("a.mkv", "libopus"), ("a.mov", "alac")])
def test_sound_is_passed_through(tmp_path: Path, name: str, codec: str) -> None:
    source = write_clip(tmp_path / name, ticks(25), sound=codec)
    path = write(tmp_path / "out.mp4", stream_frames(ticks(25)), source)
    with av.open(str(path)) as container:
        assert [stream.codec_context.name for stream in container.streams.audio] == [codec.removeprefix("lib")]
    assert len(sound_of(path)) > 3
    assert sound_of(path) == sound_of(source)
    assert times_of(path) == ticks(25)


@pytest.mark.parametrize(("name", "codec"), [("a.avi", "pcm_s16le"), ("a.ts", "mp2")])
def test_sound_that_mp4_does_not_hold_becomes_aac_at_the_same_time(tmp_path: Path, name: str, codec: str) -> None:
    source = write_clip(tmp_path / name, ticks(25), sound=codec, codec="mpeg4")
    assert recoded(source) == (codec,)
    path = write(tmp_path / "out.mp4", stream_frames(ticks(25)), source)
    with av.open(str(path)) as container:
        [stream] = container.streams.audio
        assert stream.codec_context.name == "aac"
        waves = [frame.to_ndarray()[0] for frame in container.decode(stream)]
    wave = np.concatenate(waves).astype(float)
    assert len(wave) / stream.rate == pytest.approx(1, abs=0.15)
    tone = np.abs(np.fft.rfft(wave)).argmax() * stream.rate / len(wave)
    assert tone == pytest.approx(440, abs=5)


def test_every_sound_track_is_kept(tmp_path: Path) -> None:
    one, two = write_clip(tmp_path / "one.mp4", ticks(25), sound="aac"), write_clip(tmp_path / "two.mp4", ticks(25), sound="alac")
    both = tmp_path / "both.mp4"
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(av.open(str(both), "w"))
        opened = [stack.enter_context(av.open(str(path))) for path in (one, one, two)]
        streams = [opened[0].streams.video[0], opened[1].streams.audio[0], opened[2].streams.audio[0]]
        copies = [made.add_stream_from_template(stream) for stream in streams]
        for container, stream, copy in zip(opened, streams, copies, strict=True):
            for packet in container.demux(stream):
                if packet.dts is not None:
                    packet.stream = copy
                    made.mux(packet)
    path = write(tmp_path / "out.mp4", stream_frames(ticks(25)), both)
    assert [sound_of(path, track) for track in (0, 1)] == [sound_of(one), sound_of(two)]


def test_sound_ends_with_the_picture(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4", ticks(50), sound="aac")
    path = write(tmp_path / "out.mp4", stream_frames(ticks(10)), source)
    kept = sound_of(path)
    assert kept == sound_of(source)[: len(kept)]
    assert 6 <= len(kept) <= 9  # 0.4 s in packets of 64 ms, and the one before


def test_pixels_that_are_not_square_stay_so(tmp_path: Path) -> None:
    frame = StreamFrame(picture(0), "a", 0, Fraction(0), BASE, None, Fraction(4, 3))
    path = write(tmp_path / "a.mp4", iter([frame]))
    with av.open(str(path)) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


KILLED = """
import sys, time
from fractions import Fraction
from pathlib import Path
from clips import picture
from rtformer_deploy.stream.items import StreamFrame
from rtformer_deploy.stream.mp4 import Mp4Writer
frame = lambda index: StreamFrame(picture(index), "a", index, Fraction(index, 25), Fraction(1, 12800), Fraction(1, 25))
writer = Mp4Writer(Path(sys.argv[1]), frame(0))
for index in range(20):
    writer.add(frame(index))
print("written", flush=True)
time.sleep(60)
"""


def test_a_kill_leaves_a_playable_file_under_another_name(tmp_path: Path) -> None:
    tests = Path(__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}"}
    command = [sys.executable, "-c", KILLED, str(tmp_path / "a_overlay.mp4")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
    [left] = tmp_path.iterdir()
    assert left.name.startswith("a_overlay.")
    assert left.name.endswith(".partial.mp4")
    assert is_our_video(left)
    times = times_of(left)
    assert len(times) >= 19, "at most the last frame is lost"
    assert times == [Fraction(index, 25) for index in range(len(times))]


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("when", ["while adding", "at the end"])
def test_a_full_disk_is_one_message_and_leaves_no_half_file(tmp_path: Path, when: str, keep: bool) -> None:
    """A limit on the files' size takes the disk's place. At the end the sound is added, which meets it too."""
    frames = list(stream_frames(ticks(60)))
    sound = write_clip(tmp_path / "sound.mov", ticks(60), sound="alac")
    (tmp_path / "out").mkdir()
    writer = Mp4Writer(tmp_path / "out" / "a.mp4", frames[0], keep=keep)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if when == "while adding":
        resource.setrlimit(resource.RLIMIT_FSIZE, (8000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"Cannot write .*a\.mp4: File too large") as error:  # noqa: PT012
            for frame in frames:
                writer.add(frame)
            assert when == "at the end"
            resource.setrlimit(resource.RLIMIT_FSIZE, (writer.partial.stat().st_size + 9000, limits[1]))
            writer.finish(sound)
        writer.abort()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    left = list((tmp_path / "out").iterdir())
    assert left == ([writer.partial] if keep else [])
    if keep:
        assert str(writer.partial) in str(error.value)
        assert len(times_of(writer.partial)) in (writer.frames - 1, writer.frames)


def test_a_folder_that_cannot_be_written_to_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"Cannot write .*missing/a\.mp4: No such file or directory"):
        Mp4Writer(tmp_path / "missing" / "a.mp4", next(stream_frames(ticks(1))))


def test_other_videos_are_not_ours(tmp_path: Path) -> None:
    assert not is_our_video(write_clip(tmp_path / "a.mp4", ticks(2)))
    assert not is_our_video(tmp_path / "missing.mp4")
    (tmp_path / "text.mp4").write_text("text")
    assert not is_our_video(tmp_path / "text.mp4")
