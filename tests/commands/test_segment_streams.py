"""`segment` on videos, streams and lists, as a person types it: outputs, exit codes, what is left when something fails."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from clips import picture, sound_of, ticks, times_of, write_clip, write_sound
from helpers import tiny_model
from mjpeg_server import serve
from PIL import Image

from rtformer_deploy.cli import main
from rtformer_deploy.formats.model_file import save_model
from rtformer_deploy.image.frames import overlay, save_png
from rtformer_deploy.opening import open_any
from rtformer_deploy.stream.items import StreamFrame
from rtformer_deploy.stream.mp4 import Mp4Writer
from rtformer_deploy.stream.video_file import VideoFile

pytest.importorskip("av")

Call = Callable[..., Result]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.chdir(tmp_path)
    save_model(tiny_model(), Path("model.onnx"))
    return lambda *arguments: CliRunner().invoke(main, ["segment", "model.onnx", *map(str, arguments), "-o", "out"])


def there() -> list[str]:
    return sorted(path.relative_to("out").as_posix() for path in Path("out").rglob("*") if path.is_file())


def test_a_clip_gives_its_overlay_with_its_times_and_its_sound(call: Call) -> None:
    clip = write_clip(Path("clip.mp4"), ticks(6), sound="aac")
    result = call(clip)
    assert result.exit_code == 0, result.output
    assert there() == ["clip_overlay.mp4"]
    assert "clip.mp4 -> clip_overlay.mp4 (6 frames, mostly " in result.stdout
    assert " FPS: decode " in result.stdout
    assert times_of(Path("out/clip_overlay.mp4")) == ticks(6)
    assert sound_of(Path("out/clip_overlay.mp4")) == sound_of(clip)


def test_label_maps_are_those_of_the_frames_and_the_overlay_is_drawn_of_them(call: Call) -> None:
    clip = write_clip(Path("clip.mp4"), ticks(5))
    result = call(clip, "--labels", "--every", 2, "--alpha", 0.7)
    assert result.exit_code == 0, result.output
    assert there() == [*(f"clip_labels/00000{index}.png" for index in (0, 2, 4)), "clip_overlay.mp4"]
    drawn = list(VideoFile(Path("out/clip_overlay.mp4")).items(threading.Event()))
    with open_any(Path("model.onnx")) as runner:
        for item, seen in zip(VideoFile(clip, every=2).items(threading.Event()), drawn, strict=True):
            assert isinstance(item, StreamFrame)
            assert isinstance(seen, StreamFrame)
            labels = runner.run([item.frame])[0]
            with Image.open(f"out/clip_labels/{item.index:06}.png") as image:
                assert np.array_equal(np.asarray(image), labels)
            expected = overlay(item.frame, labels, runner.spec.palette, 0.7)
            assert np.abs(expected.astype(int) - seen.frame).mean() < 8  # the codec's loss


def test_without_an_overlay_there_are_label_maps_alone(call: Call) -> None:
    Image.fromarray(picture(0)).save("a.png")
    clip = write_clip(Path("clip.mp4"), ticks(3), sound="aac")
    assert call("a.png", clip, "--labels").exit_code == 0
    whole = {name: Path("out", name).read_bytes() for name in there() if "labels" in name}
    shutil.rmtree("out")
    result = call("a.png", clip, "--labels", "--no-overlay")
    assert result.exit_code == 0, result.output
    assert {name: Path("out", name).read_bytes() for name in there()} == whole
    assert "a.png -> a_labels.png (mostly " in result.stdout
    assert "clip.mp4 -> clip_labels (3 frames, mostly " in result.stdout


def test_without_an_overlay_something_else_is_asked_for(call: Call) -> None:
    clip = write_clip(Path("clip.mp4"), ticks(3))
    result = call(clip, "--no-overlay")
    assert (result.exit_code, "Nothing would be written of clip.mp4." in result.stderr) == (2, True)
    assert not Path("out").exists()
    assert call(clip, "--no-overlay", "--areas", "csv").exit_code == 0
    assert there() == ["clip_areas.csv"]
    Path("in/sub").mkdir(parents=True)
    write_clip(Path("in/sub/below.mp4"), ticks(3))
    result = call("in", "--no-overlay", "--flicker")
    assert result.exit_code == 0, result.output
    assert "sub/below_flicker.json" in there()
    result = call(clip, "--no-overlay", "--labels", "--legend")
    assert (result.exit_code, "--legend cannot be combined with --no-overlay." in result.stderr) == (2, True)


def test_an_overlay_that_is_not_asked_for_may_be_anybodys(call: Call) -> None:
    """Nothing is written there, so nothing is refused or removed."""
    Image.fromarray(picture(0)).save("a.png")
    Path("out").mkdir()
    Path("out/a_overlay.png").write_bytes(b"mine")
    assert call("a.png").exit_code == 1
    assert call("a.png", "--no-overlay").exit_code == 0
    assert Path("out/a_overlay.png").read_bytes() == b"mine"


def test_images_videos_and_lists_together(call: Call) -> None:
    Path("in/sub").mkdir(parents=True)
    save_png(Path("in/a.png"), picture(0), mark=False)
    write_clip(Path("in/sub/clip.mp4"), ticks(3))
    write_clip(Path("in/clip.avi"), ticks(3), codec="mpeg4")
    write_clip(Path("in/clip.mkv"), ticks(3))
    Path("more.txt").write_text("in/*.png\nin/sub/clip.mp4\n")
    result = call("in", "more.txt")
    assert result.exit_code == 0, result.output
    assert there() == ["a_labels.png", "a_overlay.png", "clip_avi_overlay.mp4", "clip_mkv_overlay.mp4", "sub/clip_overlay.mp4"]
    assert "Left out" not in result.stderr
    again = call("out", "in/a.png")  # its own videos are no inputs
    assert "clip_overlay.mp4 ->" not in again.stdout


def test_an_earlier_result_is_replaced_and_nothing_else(call: Call) -> None:
    clip = write_clip(Path("clip.mp4"), ticks(5))
    assert call(clip, "--labels").exit_code == 0
    assert call(clip, "--labels", "--every", 3).exit_code == 0
    assert there() == ["clip_labels/000000.png", "clip_labels/000003.png", "clip_overlay.mp4"]
    Path("out/clip_labels/notes.txt").write_text("mine")
    result = call(clip, "--labels")
    assert result.exit_code == 1
    assert "holds other files than maps that rtformer-deploy wrote" in result.stderr
    assert there() == ["clip_labels/000000.png", "clip_labels/000003.png", "clip_labels/notes.txt", "clip_overlay.mp4"]
    write_clip(Path("out/other_overlay.mp4"), ticks(2))
    result = call(write_clip(Path("other.mp4"), ticks(2)))
    assert result.exit_code == 1
    assert "Cannot write out/other_overlay.mp4: the file there is not a video of rtformer-deploy" in result.stderr
    assert len(times_of(Path("out/other_overlay.mp4"))) == 2


def test_bad_clips_are_named_and_the_others_done(call: Call) -> None:
    Path("empty.mp4").write_bytes(b"")
    write_sound(Path("sound.mp4"))
    whole = write_clip(Path("cut.mkv"), ticks(100), gop=5).read_bytes()
    Path("cut.mkv").write_bytes(whole[: len(whole) // 2])
    result = call("empty.mp4", "sound.mp4", "cut.mkv", write_clip(Path("good.mp4"), ticks(2)), "missing.mp4")
    assert result.exit_code == 1
    assert there() == ["cut_overlay.mp4", "good_overlay.mp4"]
    assert "4 of 5 sources could not be segmented" in result.stderr
    for line in ("empty.mp4 is empty", "sound.mp4 holds no video, only audio", "cut.mkv is cut off", "Cannot read a video missing.mp4"):
        assert result.stderr.count(line) == 1, line
    assert 20 < len(times_of(Path("out/cut_overlay.mp4"))) < 80


def test_stop_on_error_stops(call: Call) -> None:
    Path("empty.mp4").write_bytes(b"")
    result = call("empty.mp4", write_clip(Path("good.mp4"), ticks(2)), "--stop-on-error")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: empty.mp4 is empty")
    assert there() == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["foo://host/x"], 2, "foo://host/x is not an address that can be read"),
        (["--camera", "97"], 1, "Cannot open camera 97"),
        ([], 2, "Name a SOURCE, or a camera with --camera"),
        (["clip.mp4", "--smooth", "1"], 2, "--smooth"),
        (["clip.mp4", "--every", "0"], 2, "--every"),
        (["nothing*.mp4"], 2, "No file fits the pattern"),
        (["clip.mp4", "--decode", "gpu"], 2, "Videos cannot be decoded on the GPU: the engine takes no frames on a GPU"),
    ],
)
def test_wrong_sources_are_one_message(call: Call, arguments: list[str], code: int, message: str) -> None:
    write_clip(Path("clip.mp4"), ticks(2))
    result = call(*arguments)
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert not Path("out").exists() or there() == []


def test_a_stream_that_hangs_up_is_one_message(call: Call) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, closing_soon(server):
        result = call(f"rtsp://user:secret@127.0.0.1:{server.getsockname()[1]}/live")
    assert result.exit_code == 1
    assert "Cannot open rtsp://127.0.0.1:" in result.stderr
    assert "secret" not in result.output
    assert there() == []


@contextlib.contextmanager
def closing_soon(server: socket.socket) -> Iterator[None]:
    """Takes one connection, says nothing, and hangs up after 0.3 s."""

    def hang_up() -> None:
        connection, _ = server.accept()
        time.sleep(0.3)
        connection.close()

    thread = threading.Thread(target=hang_up)
    thread.start()
    yield
    thread.join()


def test_a_live_stream_ends_after_its_seconds(call: Call) -> None:
    with serve([((48, 64), None)]) as camera:
        result = call(camera.address, "--seconds", 0.4)
    assert result.exit_code == 0, result.output
    [name] = there()
    assert name == "127_0_0_1_live_overlay.mp4"
    times = times_of(Path("out", name))
    assert times == sorted(set(times))
    assert 0.2 < times[-1] < 0.5


@pytest.mark.parametrize(("number", "live"), [(signal.SIGINT, True), (signal.SIGTERM, True), (signal.SIGINT, False)])
def test_ctrl_c_finishes_the_file(call: Call, number: signal.Signals, live: bool) -> None:
    """A live run ends with 0, because it ends in no other way; a file's was not done."""
    before = signal.getsignal(number)
    threading.Thread(target=interrupt, args=(number,)).start()
    if live:
        with serve([((48, 64), None)]) as camera:
            result = call(camera.address)
    else:
        result = call(write_clip(Path("clip.mp4"), ticks(1500), gop=50))
    assert result.exit_code == (0 if live else 130), result.output
    [name] = there()
    assert name.endswith("_overlay.mp4")
    times = times_of(Path("out", name))
    assert 1 <= len(times) < 1500
    assert signal.getsignal(number) is before


def interrupt(number: signal.Signals) -> None:
    """Sends this process a signal once frames are being written, or after a minute: a live stream would never end."""
    for _ in range(6000):
        if any(path.stat().st_size > 3000 for path in Path("out").glob("*.partial.mp4")):
            break
        time.sleep(0.01)
    os.kill(os.getpid(), number)


def test_a_run_that_fails_leaves_nothing_half_written(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    add = Mp4Writer.add

    def full(self: Mp4Writer, item: object) -> None:
        if self.frames == 3:
            with self._failing():
                raise OSError(28, "No space left on device")
        add(self, item)  # type: ignore[arg-type]

    monkeypatch.setattr(Mp4Writer, "add", full)
    result = call(write_clip(Path("clip.mp4"), ticks(6)), "--labels")
    assert result.exit_code == 1
    assert result.stderr == "Error: Cannot write out/clip_overlay.mp4: No space left on device.\n"
    assert there() == []
    assert list(Path("out").iterdir()) == []


def test_streams_lists_run_side_by_side(call: Call) -> None:
    with serve([((48, 64), None)]) as one, serve([((32, 40), None)]) as two:
        Path("all.streams").write_text(f"# two\n{one.address}\n{two.address}/b\n")
        result = call("all.streams", "--seconds", 0.3)
    assert result.exit_code == 0, result.output
    assert there() == ["127_0_0_1_live_b_overlay.mp4", "127_0_0_1_live_overlay.mp4"]
    assert all(len(times_of(Path("out", name))) >= 2 for name in there())


def test_flicker_is_printed_and_written(call: Call) -> None:
    result = call(write_clip(Path("clip.mp4"), ticks(5)), "--flicker", "--smooth", 0.5)
    assert result.exit_code == 0, result.output
    assert "Flicker of clip: still pixels (RGB changes by less than 4)" in result.stdout
    data = json.loads(Path("out/clip_flicker.json").read_text())
    assert len(data["frames"]) == 4
    assert data["threshold"] == 4
    assert 0 <= data["share"] <= 1
    assert Path("out/clip_flicker.svg").read_text().startswith("<svg")


def test_without_pyav_videos_say_what_to_install_and_folders_say_they_are_left_out(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("in").mkdir()
    save_png(Path("in/a.png"), picture(0), mark=False)
    write_clip(Path("in/clip.mp4"), ticks(2))
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "av" else find(name, *rest))
    result = call("in/clip.mp4")
    assert result.exit_code == 1
    assert "needs the package av" in result.stderr
    assert "pip install 'rtformer-deploy[video]'" in result.stderr
    result = call("in")
    assert result.exit_code == 0, result.output
    assert ".mp4, which is not read (1)" in result.stderr
