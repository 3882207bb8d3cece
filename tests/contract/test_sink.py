"""The contract of a sink: results come out whole when it ends, nothing is left when it is aborted."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from clips import picture, ticks, times_of, write_clip
from helpers import tiny_spec

from rtformer_deploy.errors import OutputError, VideoError
from rtformer_deploy.stream.items import StreamFrame, Unread
from rtformer_deploy.stream.result import Result
from rtformer_deploy.stream.sinks import Look, PictureSink, Sink, VideoSink, Written

pytest.importorskip("av")

SPEC = tiny_spec()
TIMES = ticks(4)


def pictures(folder: Path) -> Sink:
    return PictureSink([(folder / f"{index}_labels.png", folder / f"{index}_overlay.png") for index in range(4)], SPEC, Look())


def video(folder: Path) -> Sink:
    sound = write_clip(folder.parent / "sound.mp4", TIMES, sound="aac")
    return VideoSink(folder / "clip_overlay.mp4", SPEC, Look(), labels=folder / "clip_labels", sound=sound)


def label_maps(folder: Path) -> Sink:
    return PictureSink([(folder / f"{index}_labels.png", None) for index in range(4)], SPEC, Look())


def clips_label_maps(folder: Path) -> Sink:
    return VideoSink(None, SPEC, Look(), labels=folder / "clip_labels")


KINDS: dict[str, Callable[[Path], Sink]] = {
    "pictures": pictures, "label maps": label_maps, "video": video, "a video's label maps": clips_label_maps,
}  # fmt: skip
FILES = {
    "label maps": {f"{index}_labels.png" for index in range(4)},
    "a video's label maps": {f"clip_labels/{index:06}.png" for index in range(4)},
    "pictures": {f"{index}_{kind}.png" for index in range(4) for kind in ("labels", "overlay")},
    "video": {"clip_overlay.mp4", *(f"clip_labels/{index:06}.png" for index in range(4))},
}


def send(sink: Sink, index: int, time: Fraction | None) -> Written | None:
    frame = picture(index)
    labels = np.zeros(frame.shape[:2], np.uint8)
    labels[:, 32:] = 1
    item = StreamFrame(frame, "clip", index, time, Fraction(1, 12800))
    result = Result(frame, labels, "clip", "clip.mp4", index, 0.0, SPEC)
    return sink.write(item, result, sink.draw(result))


def there(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_everything_is_there_at_the_end_and_nothing_else(kind: str, tmp_path: Path) -> None:
    sink = KINDS[kind](tmp_path / "out")
    written = [send(sink, index, time) for index, time in enumerate(TIMES)]
    written.append(sink.end())
    assert there(tmp_path / "out") == FILES[kind]
    told = [each for each in written if each is not None]
    assert sum(each.frames for each in told) == 4
    for each in told:
        assert each.size == (48, 64)
        assert each.shares is not None
        assert each.shares.tolist() == [0.5, 0.5, 0, 0, 0]
        assert all(path.exists() for path in each.files)


def test_an_aborted_one_leaves_nothing_unfinished(kind: str, tmp_path: Path) -> None:
    sink = KINDS[kind](tmp_path / "out")
    send(sink, 0, TIMES[0])
    sink.abort()
    assert there(tmp_path / "out") in (set(), {"0_labels.png"}, {"0_labels.png", "0_overlay.png"})  # a picture is whole when it is written


def test_a_source_that_gave_nothing_leaves_nothing(kind: str, tmp_path: Path) -> None:
    sink = KINDS[kind](tmp_path / "out")
    error = VideoError("gone")
    told = [each for each in (sink.unread(Unread(0, error)), sink.end()) if each is not None]
    assert [each.error for each in told] == [error]
    assert not (tmp_path / "out").exists()


def test_a_size_that_changes_begins_a_file(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "clip_overlay.mp4", SPEC, Look())
    for index, (time, size) in enumerate(zip(TIMES, [(48, 64), (48, 64), (30, 40), (30, 40)], strict=True)):
        frame = picture(index, size)
        result = Result(frame, np.zeros(size, np.uint8), "clip", "clip.mp4", index, 0.0, SPEC)
        sink.write(StreamFrame(frame, "clip", index, time, Fraction(1, 12800)), result, sink.draw(result))
    written = sink.end()
    assert written is not None
    assert [path.name for path in written.files] == ["clip_overlay.mp4", "clip_overlay_2.mp4"]
    assert [times_of(path) for path in written.files] == [TIMES[:2], TIMES[2:]]
    write_clip(tmp_path / "other_overlay_2.mp4", TIMES)
    sink = VideoSink(tmp_path / "other_overlay.mp4", SPEC, Look())
    send(sink, 0, TIMES[0])
    small = StreamFrame(picture(1, (30, 40)), "clip", 1, TIMES[1], Fraction(1, 12800))
    result = Result(small.frame, np.zeros((30, 40), np.uint8), "clip", "clip.mp4", 1, 0.0, SPEC)
    with pytest.raises(OutputError, match="is no video of rtformer-deploy"):
        sink.write(small, result, sink.draw(result))
    sink.abort()
