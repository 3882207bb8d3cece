"""Videos that the GPU decodes: frames stay there until they are asked for, and labels and pictures are those of the CPU way."""

from __future__ import annotations

import dataclasses
import gc
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import tiny_model
from mjpeg_server import serve
from tensorrt_lab import TensorRTLab
from tensorrt_plans import make_engine

pytest.importorskip("av", reason="needs PyAV")

from clips import picture, pictures_of, ticks, turn, write_clip
from nvdec_lab import NvdecLab

import rtformer_deploy as rd
from rtformer_deploy.backends import open_engine
from rtformer_deploy.cli import main
from rtformer_deploy.errors import EngineError, UsageError, VideoError
from rtformer_deploy.formats.engine_file import save_engine
from rtformer_deploy.formats.model_file import save_model
from rtformer_deploy.image.frames import save_png
from rtformer_deploy.lanes.surfaces import GpuFrame
from rtformer_deploy.runtime.frame_runner import FrameRunner
from rtformer_deploy.runtime.tiled import TiledRunner
from rtformer_deploy.stream.camera import device_source
from rtformer_deploy.stream.live import LiveOptions
from rtformer_deploy.stream.loop import Loop, LoopOptions
from rtformer_deploy.stream.result import Result

FRAMES = 6


@pytest.fixture
def nvdec(machine: TensorRTLab, cuda: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[NvdecLab]:
    """A GPU that decodes; every picture is given back at the end."""
    monkeypatch.setattr("rtformer_deploy.stream.nvdec.missing_video_library", lambda: None)
    lab = NvdecLab(cuda)
    lab.install(monkeypatch)
    yield lab
    gc.collect()
    faults, log = machine.driver.faults(), machine.driver.log()
    machine.driver.reset()  # what is queued is forgotten
    lab.close()
    assert faults == 0, log
    assert lab.live == 0


@pytest.fixture
def runner(machine: TensorRTLab) -> Iterator[FrameRunner]:
    with open_engine(make_engine(), lanes=2) as opened:
        yield opened


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4", ticks(FRAMES))


def results(source: Any, runner: Any, **options: Any) -> list[Result]:
    with rd.segment(source, runner, **options) as made:
        return list(made)


def assert_same(given: list[Result], expected: list[Result]) -> None:
    """Labels and frames are equal, bit by bit."""
    assert [(one.name, one.index, one.time) for one in given] == [(one.name, one.index, one.time) for one in expected]
    for one, other in zip(given, expected, strict=True):
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.frame, other.frame)


@pytest.mark.parametrize("batch", [1, 3])
def test_frames_and_labels_are_those_of_the_cpu_way(nvdec: NvdecLab, runner: FrameRunner, clip: Path, batch: int) -> None:
    given = results(clip, runner, decode="gpu", batch=batch)
    assert nvdec.uploads == FRAMES
    assert all(isinstance(result.picture, GpuFrame) for result in given)
    assert_same(given, results(clip, runner, decode="cpu", batch=batch))
    assert nvdec.uploads == FRAMES, "the CPU way asks no GPU"


def test_who_wants_labels_only_copies_labels_only(nvdec: NvdecLab, machine: TensorRTLab, clip: Path) -> None:
    made: list[Result] = []
    with open_engine(make_engine(), graphs=False) as runner:
        work = machine.calls(lambda: made.extend(results(clip, runner, decode="gpu")))
        assert work["queued launch nv12_to_rgb"] == FRAMES
        assert work["queued copy device to pinned"] == FRAMES, "the label maps"
    for copies in (FRAMES, 0):
        overlays = machine.calls(lambda: [result.overlay() for result in made])
        assert overlays["queued copy device to pinned"] == copies, "a frame is copied once"


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_rotated_video_is_turned_on_the_gpu(nvdec: NvdecLab, runner: FrameRunner, clip: Path, degrees: int) -> None:
    turn(clip, degrees)
    given = results(clip, runner, decode="gpu")
    assert all(isinstance(result.picture, GpuFrame) for result in given)
    assert_same(given, results(clip, runner, decode="cpu"))


@pytest.mark.parametrize("options", [{"smooth": 0.4}, {"logits": True}, {"confidence": True}])
def test_what_needs_logits_takes_frames_on_the_gpu(nvdec: NvdecLab, runner: FrameRunner, clip: Path, options: dict[str, Any]) -> None:
    given, expected = (results(clip, runner, decode=decode, **options) for decode in ("gpu", "cpu"))
    assert_same(given, expected)
    for one, other in zip(given, expected, strict=True):
        np.testing.assert_array_equal(one.logits, other.logits)
        np.testing.assert_array_equal(one.confidence, other.confidence)


@pytest.mark.parametrize("matrix", [1, 9])
def test_colours_are_those_that_the_video_says(nvdec: NvdecLab, runner: FrameRunner, tmp_path: Path, matrix: int) -> None:
    clip = write_clip(tmp_path / "clip.mp4", ticks(2), matrix=matrix)
    given = results(clip, runner, decode="gpu")
    assert_same(given, results(clip, runner, decode="cpu"))
    untold = results(write_clip(tmp_path / "untold.mp4", ticks(2)), runner, decode="gpu")
    assert not np.array_equal(given[0].frame, untold[0].frame)


def test_colours_that_are_not_converted_are_an_error(nvdec: NvdecLab, runner: FrameRunner, tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"cannot be converted to RGB: The video's colours are of matrix 10"):
        results(write_clip(tmp_path / "clip.mp4", ticks(2), matrix=10), runner, decode="gpu")


def test_images_and_videos_in_one_batch(nvdec: NvdecLab, runner: FrameRunner, clip: Path) -> None:
    """Frames in both places cannot be submitted together, so that batch goes through host memory."""
    image = clip.with_name("image.png")
    save_png(image, picture(3))
    given, expected = (results([image, clip], runner, decode=decode, batch=3) for decode in ("gpu", "cpu"))
    assert_same(given, expected)


def test_memory_goes_from_frame_to_frame(nvdec: NvdecLab, machine: TensorRTLab, runner: FrameRunner, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "long.mp4", ticks(30))
    results_seen = 0
    before = machine.count("queued allocate")
    with rd.segment(clip, runner, decode="gpu") as made:
        for result in made:
            results_seen += result.labels.shape == (48, 64)
    assert results_seen == 30
    surfaces = nvdec.uploads  # each is allocated by the lab
    assert machine.count("queued allocate") - before - surfaces < 25


def test_frames_are_whole_after_their_runner_is_closed(nvdec: NvdecLab, machine: TensorRTLab, clip: Path) -> None:
    with open_engine(make_engine()) as opened:
        given = results(clip, opened, decode="gpu")
        expected = results(clip, opened, decode="cpu")
    assert_same(given, expected)


def test_a_live_source(nvdec: NvdecLab, runner: FrameRunner) -> None:
    source = device_source("testsrc2=size=64x48:rate=50,format=yuv420p,realtime", "lavfi", "camera 7", "camera7", LiveOptions(seconds=0.3))
    events = list(Loop([source], runner, LoopOptions(decode="gpu")).events())
    pictures = [event.result.picture for event in events if event.result is not None]
    assert len(pictures) > 3
    assert all(isinstance(one, GpuFrame) for one in pictures)


def test_a_broken_gpu_ends_the_run(nvdec: NvdecLab, machine: TensorRTLab, runner: FrameRunner, clip: Path) -> None:
    machine.driver.break_context(after=40)
    with pytest.raises(EngineError, match="has failed"):
        results(clip, runner, decode="gpu")


@pytest.mark.parametrize("decode", ["auto", "gpu"])
def test_ten_bits_are_refused_by_name_or_copied(nvdec: NvdecLab, runner: FrameRunner, clip: Path, decode: Any, tmp_path: Path) -> None:
    nvdec.wide = True
    lines: list[str] = []
    if decode == "gpu":
        with pytest.raises(VideoError, match=r"clip\.mp4 cannot be decoded on the GPU: they are in p010le, and only 8-bit 4:2:0"):
            results(clip, runner, decode=decode)
        return
    given = results([clip, write_clip(tmp_path / "other.mp4", ticks(2))], runner, decode=decode, say=lines.append)
    assert lines == [f"{clip}: frames are made on the CPU, since they are in p010le, and only 8-bit 4:2:0 (nv12) stays on the GPU."]
    assert len(given) == FRAMES + 2
    assert all(isinstance(result.picture, np.ndarray) for result in given)
    for one, other in zip(given, results(clip, runner, decode="cpu"), strict=False):
        assert np.abs(one.frame.astype(int) - other.frame).mean() < 2  # FFmpeg interpolates the chroma of P010


def test_the_command_writes_the_same_video(nvdec: NvdecLab, clip: Path, tmp_path: Path) -> None:
    """With an engine that runs on a GPU, --decode is auto and takes NVDEC."""
    engine = tmp_path / "engine.plan"
    made = make_engine()
    plan = hashlib.sha256(made.plan).hexdigest()
    verified = dataclasses.replace(made.info.precision, state="verified")
    save_engine(dataclasses.replace(made, info=dataclasses.replace(made.info, plan_sha256=plan, precision=verified)), engine)
    for name, options in (("gpu", []), ("cpu", ["--decode", "cpu"])):
        done = CliRunner().invoke(main, ["segment", str(engine), str(clip), "--output", str(tmp_path / name), *options])
        assert done.exit_code == 0, done.output
        assert nvdec.uploads == FRAMES
    on_gpu, on_cpu = (pictures_of(tmp_path / name / "clip_overlay.mp4") for name in ("gpu", "cpu"))
    np.testing.assert_array_equal(on_gpu, on_cpu)


def test_what_nvdec_does_not_decode_is_said_once_and_decoded_on_the_cpu(
    machine: TensorRTLab, runner: FrameRunner, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FFmpeg itself opens the clips for the stub's GPU, finds no libnvcuvid and decodes them itself."""
    monkeypatch.setattr("rtformer_deploy.stream.nvdec.missing_video_library", lambda: None)
    clips, lines = [clip, write_clip(tmp_path / "other.mp4", ticks(2))], list[str]()
    given = results(clips, runner, say=lines.append)
    assert lines == [f"{clip}: frames are made on the CPU, since NVDEC does not decode h264 in yuv420p here."]
    assert_same(given, results(clips, runner, decode="cpu", say=lines.append))
    assert len(lines) == 1
    with pytest.raises(VideoError, match=r"clip\.mp4 cannot be decoded on the GPU: NVDEC does not decode h264 in yuv420p here"):
        results(clips, runner, decode="gpu")


def test_a_live_source_that_nvdec_does_not_decode_is_opened_anew_and_not_lost(
    machine: TensorRTLab, runner: FrameRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtformer_deploy.stream.nvdec.missing_video_library", lambda: None)
    lines: list[str] = []
    with serve([((48, 64), None)]) as camera:
        with rd.segment(camera.address, runner, say=lines.append) as made:
            given = [next(made) for _ in range(3)]
            counts = made.counts[camera.address]
        assert camera.connections == 2
    assert lines == [f"{camera.address}: frames are made on the CPU, since NVDEC does not decode mjpeg in yuvj420p here."]
    assert counts.lost == 0
    assert all(isinstance(result.picture, np.ndarray) for result in given)


def test_a_missing_library_is_named_once(
    machine: TensorRTLab, runner: FrameRunner, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtformer_deploy.stream.nvdec.missing_video_library", lambda: "libnvcuvid.so.1")
    clips, lines = [clip, write_clip(tmp_path / "other.mp4", ticks(2))], list[str]()
    assert_same(results(clips, runner, say=lines.append), results(clips, runner, decode="cpu"))
    assert len(lines) == 1
    assert lines[0].startswith("Videos are decoded on the CPU: the driver's libnvcuvid.so.1 is not installed")
    with pytest.raises(VideoError, match=r"Videos cannot be decoded on the GPU: the driver's libnvcuvid\.so\.1"):
        rd.segment(clip, runner, decode="gpu")


def test_a_run_of_images_asks_for_no_decoder(machine: TensorRTLab, runner: FrameRunner, tmp_path: Path) -> None:
    save_png(tmp_path / "image.png", picture(0))
    lines: list[str] = []
    assert len(results(tmp_path / "image.png", runner, say=lines.append)) == 1
    assert lines == []


def test_the_gpu_is_refused_where_it_cannot_be(nvdec: NvdecLab, runner: FrameRunner, clip: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="tiles are cut out of frames on the CPU"):
        rd.segment(clip, TiledRunner(runner, 16), decode="gpu")
    save_model(tiny_model("batch"), tmp_path / "model.onnx")
    with pytest.raises(UsageError, match="Videos cannot be decoded on the GPU: the engine takes no frames on a GPU"):
        rd.segment(clip, tmp_path / "model.onnx", decode="gpu", threads=1)
    lines: list[str] = []
    given = results(clip, TiledRunner(runner, 16), say=lines.append)
    assert (len(given), lines, nvdec.uploads) == (FRAMES, [], 0)
