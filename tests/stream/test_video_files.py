"""Video files: every frame, its own time, upright; what is broken is counted, what is cut off is said."""

from __future__ import annotations

import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import BASE, pictures_of, ticks, turn, write_clip, write_sound

from rtformer_deploy.errors import VideoError
from rtformer_deploy.stream.items import StreamFrame
from rtformer_deploy.stream.video_file import VideoFile


def read(source: VideoFile) -> list[StreamFrame]:
    return [item for item in source.items(threading.Event()) if isinstance(item, StreamFrame)]


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mov", "clip.mkv", "clip.ts"])
def test_times_are_the_files_own_and_begin_at_nought(tmp_path: Path, name: str) -> None:
    """Uneven times, as telephones make them; a transport stream begins at 1.4 s."""
    times = [Fraction(step) / 1000 for step in (0, 10, 40, 90, 400)]
    if name.endswith(("mp4", "mov")):
        times = [round(time / BASE) * BASE for time in times]
    frames = read(VideoFile(write_clip(tmp_path / name, times)))
    assert [item.time for item in frames] == times
    assert [item.index for item in frames] == [0, 1, 2, 3, 4]
    assert [int(item.frame[40, 5, 0]) // 9 for item in frames] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("name", "codec"), [("clip.h264", "libx264"), ("clip.mjpeg", "mjpeg")])
def test_no_rate_is_assumed(tmp_path: Path, name: str, codec: str) -> None:
    with pytest.raises(VideoError, match=r"has no time stamps[\s\S]*ffmpeg -r FPS"):
        read(VideoFile(write_clip(tmp_path / name, ticks(3), codec=codec)))


@pytest.mark.parametrize(("degrees", "rows"), [(90, 64), (180, 48), (270, 64)])
def test_a_rotated_video_comes_out_upright(tmp_path: Path, degrees: int, rows: int) -> None:
    clip = write_clip(tmp_path / "clip.mp4", ticks(2))
    stored = pictures_of(clip)[0]
    [first, _] = read(VideoFile(turn(clip, degrees)))
    assert first.frame.shape[0] == rows
    assert np.array_equal(first.frame, np.rot90(stored, -degrees // 90))  # a player turns clockwise


def test_colours_that_are_not_converted_are_an_error(tmp_path: Path) -> None:
    """BT.2020 of constant luminance, which FFmpeg does not convert."""
    with pytest.raises(VideoError, match=r"A frame of .*clip\.mp4 cannot be converted to RGB: .*not supported"):
        read(VideoFile(write_clip(tmp_path / "clip.mp4", ticks(2), matrix=10)))


def test_every_and_seconds(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", ticks(10))
    source = VideoFile(clip, every=4)
    assert [item.index for item in read(source)] == [0, 4, 8]
    assert source.total == 3
    assert [item.index for item in read(VideoFile(clip, seconds=0.1))] == [0, 1, 2]


def test_a_broken_frame_is_counted_and_passed_over(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mkv", ticks(9), codec="mjpeg")
    data = bytearray(clip.read_bytes())
    starts = [place for place in range(len(data)) if data[place : place + 3] == b"\xff\xd8\xff"]
    size = starts[5] - starts[4] - 20  # the next block's head comes before the next frame
    data[starts[4] : starts[4] + size] = bytes(size)
    clip.write_bytes(data)
    source = VideoFile(clip)
    frames = read(source)
    assert (len(starts), len(frames), source.counts.broken) == (9, 8, 1)
    assert [item.index for item in frames] == [0, 1, 2, 3, 5, 6, 7, 8]


def test_frames_that_a_damaged_one_spoils_are_counted(tmp_path: Path) -> None:
    """In H.264 a frame is made of those before it, up to the next key frame."""
    times = ticks(24)
    clip = write_clip(tmp_path / "clip.mp4", times, gop=6)
    with av.open(str(clip)) as container:
        place, size = next((entry.pos, entry.size) for entry in list(container.streams.video[0].index_entries)[7:])
    data = bytearray(clip.read_bytes())
    data[place + 4 : place + size] = bytes(size - 4)
    clip.write_bytes(data)
    source = VideoFile(clip)
    frames = read(source)
    assert source.counts.broken >= 1
    assert len(frames) + source.counts.broken == 24
    assert [item.time for item in frames] == [times[item.index] for item in frames]


def test_a_video_that_is_cut_off_gives_what_is_there_and_says_so(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mkv", ticks(100), gop=5)
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 3])
    source = VideoFile(clip)
    with pytest.raises(VideoError, match=r"clip.mkv is cut off: it could be read to [0-9.]+ s of 4.0 s, \d+ frames"):
        read(source)
    assert 10 < source.counts.read < 60


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("not a video\n" * 100)


def sound_only(path: Path) -> None:
    write_sound(path)


def headless(path: Path) -> None:
    data = write_clip(path, ticks(3)).read_bytes()
    path.write_bytes(data[: data.index(b"mdat") + 100])


def playlist(path: Path) -> None:
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:1/a.ts\n#EXT-X-ENDLIST\n")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (empty, "is empty"),
        (text, "Cannot open .*not a video"),
        (sound_only, "holds no video, only audio"),
        (headless, "Cannot open .*damaged"),
        (playlist, "Cannot open"),
        (Path.mkdir, "it is a folder"),
        (lambda path: None, "Cannot read a video"),
    ],
    ids=["empty", "text", "sound", "headless", "playlist", "folder", "missing"],
)
def test_what_is_no_video_is_one_message(tmp_path: Path, make: object, message: str) -> None:
    assert callable(make)
    make(tmp_path / "clip.mp4")
    with pytest.raises(VideoError, match=message) as error:
        read(VideoFile(tmp_path / "clip.mp4"))
    assert str(tmp_path / "clip.mp4") in str(error.value)
