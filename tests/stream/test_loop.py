"""The loop: results in order whatever the stages do, errors with their message, nothing left open. And `rtformer_deploy.segment`."""

from __future__ import annotations

import dataclasses
import itertools
import re
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import picture, ticks, write_clip
from helpers import CLASSES, frames, tiny_model, tiny_spec
from mjpeg_server import serve

import rtformer_deploy as rd
from rtformer_deploy.errors import DeployError, EngineError, ImageError, UsageError, VideoError
from rtformer_deploy.formats.model_file import save_model
from rtformer_deploy.image.frames import save_png, upsample_argmax
from rtformer_deploy.opening import open_any
from rtformer_deploy.runtime.frame_runner import FrameRunner
from rtformer_deploy.stream.items import Counts, StreamFrame, Unread
from rtformer_deploy.stream.loop import Loop, LoopOptions
from rtformer_deploy.stream.nvdec import Nvdec
from rtformer_deploy.stream.overlap import overlap
from rtformer_deploy.stream.record import record
from rtformer_deploy.stream.sinks import Written
from rtformer_deploy.types import Frame

pytest.importorskip("av")


class Made:
    """A source of frames made here; `fails` raises at its end."""

    def __init__(self, name: str, count: int, *, live: bool = False, fails: Exception | None = None) -> None:
        self.text = self.name = name
        self.live, self.total, self.counts = live, count, Counts()
        self.closed = False
        self._fails = fails

    total: int | None

    def items(self, stop: threading.Event, nvdec: Nvdec | None = None) -> Generator[StreamFrame | Unread]:
        try:
            for index in range(self.total or 0):
                if stop.is_set():
                    return
                self.counts.read += 1
                yield StreamFrame(picture(index), self.name, index, Fraction(index, 25))
                if self.live:
                    time.sleep(0.005)
            if self._fails is not None:
                raise self._fails
        finally:
            self.closed = True


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    save_model(tiny_model("batch"), path)
    return path


@pytest.fixture
def runner(model: Path) -> Iterator[FrameRunner]:
    with open_any(model, threads=1) as opened:
        yield opened


@pytest.mark.parametrize(("batch", "ahead"), [(1, 1), (1, 3), (4, 1), (3, 2)])
def test_results_are_those_of_the_runner_in_order(runner: FrameRunner, batch: int, ahead: int) -> None:
    sources = [Made("a", 5), Made("b", 3)]
    events = list(Loop(sources, runner, LoopOptions(batch, ahead)).events())
    results = [event.result for event in events if event.result is not None]
    assert [(result.name, result.index) for result in results] == [*(("a", i) for i in range(5)), *(("b", i) for i in range(3))]
    assert [event.source.name for event in events if event.result is None] == ["a", "b"]
    for result in results:
        assert np.array_equal(result.labels, runner.run([picture(result.index)])[0])
        assert np.array_equal(result.overlay(0.3), rd.overlay(result.frame, result.labels, runner.spec.palette, 0.3))
    assert all(source.closed for source in sources)


def test_live_sources_take_turns_at_one_runner(runner: FrameRunner) -> None:
    events = Loop([Made("a", 40, live=True), Made("b", 40, live=True), Made("file", 4)], runner).events()
    names = [event.source.name for event in events if event.result is not None]
    assert {"a", "b", "file"} == set(names)
    assert names.count("file") == 4, "a file's frames are never dropped"
    first = names[: len(names) // 2]
    assert {"a", "b"} <= set(first)


def test_an_error_of_a_source_comes_in_its_place_and_the_next_goes_on(runner: FrameRunner) -> None:
    events = list(Loop([Made("a", 2, fails=VideoError("torn.")), Made("b", 1)], runner).events())
    kinds = [(event.source.name, "frame" if event.result else str(event.unread.error) if event.unread else "end") for event in events]
    assert kinds == [("a", "frame"), ("a", "frame"), ("a", "torn."), ("a", "end"), ("b", "frame"), ("b", "end")]


def test_an_error_that_is_no_ones_ends_the_run_with_its_message(runner: FrameRunner) -> None:
    source = Made("a", 2, fails=RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        list(Loop([source], runner).events())


def test_an_engine_that_fails_ends_the_run_and_frees_the_readers(runner: FrameRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(ticket: object) -> None:
        raise EngineError("out of memory")

    monkeypatch.setattr(runner, "result", fail)
    source = Made("a", 1000)
    with pytest.raises(EngineError, match="out of memory"):
        list(Loop([source], runner).events())
    assert source.closed
    assert source.counts.read < 20, "readers wait for the runner"


def test_a_slow_runner_drops_live_frames_and_takes_the_newest(runner: FrameRunner) -> None:
    source = Made("a", 200, live=True)
    events = Loop([source], runner).events()
    indices = []
    for event in events:
        if event.result is not None:
            indices.append(event.result.index)
            time.sleep(0.03)
    assert len(indices) < 150
    assert source.counts.dropped == 200 - len(indices)
    assert indices == sorted(indices)
    assert indices[-1] == 199


class Sink:
    """Keeps what it gets; fails at the frame `bad`."""

    def __init__(self, bad: int | None = None) -> None:
        self.bad, self.written, self.calls = bad, list[int](), list[str]()

    def draw(self, result: rd.Result) -> Frame:
        return result.overlay()

    def write(self, item: StreamFrame, result: rd.Result, drawing: Frame | None) -> None:
        if item.index == self.bad:
            raise DeployError("the disk is full")
        self.written.append(item.index)

    def unread(self, unread: Unread) -> Written | None:
        return Written(error=unread.error)

    def end(self) -> Written | None:
        self.calls.append("end")
        return Written(frames=len(self.written))

    def abort(self) -> None:
        self.calls.append("abort")


def test_a_sink_gets_everything_in_order_and_its_end(runner: FrameRunner) -> None:
    sink, seen = Sink(), list[int]()
    told = [written for _, written in record(Loop([Made("a", 7)], runner), {"a": sink}, lambda source, result: seen.append(result.index))]
    assert sink.written == seen == list(range(7))
    assert sink.calls == ["end"]
    assert [written.frames for written in told if written is not None] == [7]


def test_a_sink_that_fails_ends_the_run_with_its_message(runner: FrameRunner) -> None:
    sinks, sources = {"a": Sink(bad=2), "b": Sink()}, [Made("a", 1000), Made("b", 10)]
    with pytest.raises(DeployError, match="the disk is full"):
        list(record(Loop(sources, runner), sinks))
    assert [sink.calls for sink in sinks.values()] == [["abort"], ["abort"]]
    assert sources[0].closed


def test_stages_overlap(runner: FrameRunner) -> None:
    """Decoding, drawing and writing take 10 ms each, and thirty frames little more than 10 ms each."""

    class Slow(Sink):
        def draw(self, result: rd.Result) -> Frame:
            time.sleep(0.01)
            return result.frame

        def write(self, item: StreamFrame, result: rd.Result, drawing: Frame | None) -> None:
            time.sleep(0.01)

    class SlowSource(Made):
        def items(self, stop: threading.Event, nvdec: Nvdec | None = None) -> Generator[StreamFrame | Unread]:
            for item in super().items(stop, nvdec):
                time.sleep(0.01)
                yield item

    loop = Loop([SlowSource("a", 30)], runner)
    began = time.monotonic()
    list(record(loop, {"a": Slow()}))
    assert time.monotonic() - began < 0.03 * 30 * 0.8
    assert loop.stages.frames == 30
    assert loop.stages.shares()["draw"] > 0.3


def test_overlap_keeps_order_and_raises_what_the_work_raises() -> None:
    assert list(overlap(range(20), lambda value: value * 2, "double")) == list(range(0, 40, 2))
    values = overlap(itertools.count(), lambda value: 1 // (3 - value), "divide")
    assert list(itertools.islice(values, 3)) == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(values)


def test_smooth_is_a_running_mean_of_the_logits(runner: FrameRunner) -> None:
    results = [event.result for event in Loop([Made("a", 4)], runner, LoopOptions(smooth=0.6, logits=True)).events() if event.result]
    mean = None
    for result in results:
        logits = runner.logits([picture(result.index)])[0]
        mean = logits if mean is None else np.float32(0.6) * mean + (np.float32(1) - np.float32(0.6)) * logits
        assert result.logits is not None
        assert np.array_equal(result.logits, mean)
        assert np.array_equal(result.labels, upsample_argmax(mean, (48, 64), runner.spec.size))


def test_smooth_needs_an_engine_with_logits(runner: FrameRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "spec", tiny_spec(head="labels"))
    with pytest.raises(UsageError, match="--smooth needs logits; this engine was built with --head labels"):
        Loop([Made("a", 1)], runner, LoopOptions(smooth=0.5))


# ------------------------------------------------------------------------------------------------- rtformer_deploy.segment


def test_segment_a_video_and_an_image(model: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", ticks(5))
    save_png(tmp_path / "street.png", picture(3), mark=False)
    results = list(rd.segment([clip, str(tmp_path / "street.png")], model, logits=True))
    assert [(result.name, result.index) for result in results] == [("street", 0), *(("clip", index) for index in range(5))]
    assert [result.time for result in results] == pytest.approx([None, 0, 0.04, 0.08, 0.12, 0.16], abs=1e-4)
    for result in results:
        assert result.labels.shape == result.frame.shape[:2] == (48, 64)
        assert result.spec.classes == tiny_spec().classes
        assert result.logits is not None
        assert result.logits.shape == (CLASSES, 8, 12)
    with pytest.raises(dataclasses.FrozenInstanceError):
        results[0].labels = results[1].labels  # type: ignore[misc]


def test_images_are_decoded_into_frames_of_the_runners(runner: FrameRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Frame] = []
    own = runner.frame
    monkeypatch.setattr(runner, "frame", lambda size: given.append(own(size)) or given[-1])  # type: ignore[func-returns-value]
    for index in range(3):
        save_png(tmp_path / f"{index}.png", picture(index), mark=False)
    results = list(rd.segment(tmp_path, runner))
    assert [result.frame is frame for result, frame in zip(results, given, strict=True)] == [True] * 3
    for index, result in enumerate(results):
        np.testing.assert_array_equal(result.frame, picture(index))


def test_segment_leaves_a_runner_open_and_closes_its_own(model: Path, runner: FrameRunner, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", ticks(50))
    with rd.segment(clip, runner) as results:
        assert next(results).index == 0
    assert runner.run(frames((10, 10)))[0].shape == (10, 10)
    results = rd.segment(clip, model)
    next(results)
    results.close()
    results.close()
    assert list(results) == []


def test_segment_stops_at_an_error_and_counts_what_it_read(model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(ImageError, match=r"a.png is not an image"):
        list(rd.segment(tmp_path / "a.png", model))
    with serve([((48, 64), None)]) as camera, rd.segment(camera.address, model, seconds=0.3) as results:
        seen = [result.time for result in results]
        assert None not in seen
        assert results.counts[camera.address].read >= len(seen) > 2


@pytest.mark.parametrize(
    "wrong", [{"batch": 0}, {"every": 0}, {"seconds": 0}, {"smooth": 1.0}, {"smooth": -0.1}], ids=lambda wrong: str(wrong)
)
def test_segment_refuses_wrong_numbers(model: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        rd.segment("a.png", model, **wrong)


def test_segment_needs_a_source(model: Path, tmp_path: Path) -> None:
    sources: Sequence[str] = []
    with pytest.raises(UsageError, match="no source"):
        rd.segment(sources, model)


def test_the_example_of_the_docs_runs(root: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.search(r"```python\n(.*?)```", (root / "docs" / "video.md").read_text(), re.DOTALL)
    assert code is not None
    monkeypatch.chdir(tmp_path)
    write_clip(Path("clip.mp4"), ticks(2))
    names: dict[str, Any] = {}
    exec(compile(code[1].replace("engine.plan", str(model)), "video.md", "exec"), names)
    assert names["result"].index == 1
    assert names["results"].counts["clip.mp4"].read == 2


def test_the_docs_name_every_option_and_every_field(root: Path) -> None:
    text = (root / "docs" / "video.md").read_text()
    for name in ("--every", "--seconds", "--retry", "--labels", "--smooth", "--flicker", "--camera", "--decode"):
        assert f"`{name}" in text, name
    for field in ("frame", *(field.name for field in dataclasses.fields(rd.Result))):
        assert f"`{field}" in text, field
