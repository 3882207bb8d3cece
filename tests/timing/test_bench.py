"""bench on a runner whose engine takes a known time by a clock that the test owns."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from helpers import CLASSES, SIZE, StoppedError, frames, stop, tiny_spec
from numpy.typing import NDArray

from rtformer_deploy.errors import UsageError
from rtformer_deploy.image import native
from rtformer_deploy.image.samples import drawn_street
from rtformer_deploy.image.upsample import mixed_share
from rtformer_deploy.pictures.report import render
from rtformer_deploy.runtime.cpu_session import CpuSession
from rtformer_deploy.runtime.frame_runner import FrameRunner
from rtformer_deploy.timing.bench import bench
from rtformer_deploy.timing.report import Report, Timing, histogram


class Clock:
    """Seconds that pass only when the test's engine works."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class KnownEngine:
    """An engine session that takes `seconds` of the clock and sees class 1 on the left and class 2 on the right."""

    def __init__(self, clock: Clock, seconds: float, batch: int = 2) -> None:
        self.input: NDArray[np.float32] = np.zeros((batch, 3, *SIZE), np.float32)
        self.clock, self.seconds = clock, seconds
        self.batches: list[int] = []

    def start(self, batch: int) -> None:
        self.batches.append(batch)

    def wait(self) -> NDArray[Any]:
        self.clock.now += self.seconds
        logits = np.zeros((self.batches[-1], CLASSES, SIZE[0] // 8, SIZE[1] // 8), np.float32)
        logits[:, 1, :, :6] = logits[:, 2, :, 6:] = 1
        return logits

    def close(self) -> None:
        self.input = np.empty(0, np.float32)


def runner_of(*engines: KnownEngine) -> FrameRunner:
    spec = tiny_spec("batch")
    return FrameRunner([CpuSession(engine, spec) for engine in engines], spec, (1, 1, 2))


def known(lanes: int = 1, seconds: float = 0.01) -> tuple[FrameRunner, list[KnownEngine], Clock]:
    clock = Clock()
    engines = [KnownEngine(clock, seconds) for _ in range(lanes)]
    return runner_of(*engines), engines, clock


def measured(lanes: int = 1, batch: int = 1) -> Report:
    runner, _, clock = known(lanes)
    return bench(runner, frames(SIZE) * batch, seconds=0.5, warmup=0.1, clock=clock)


def test_latency_mode_times_the_engine_and_each_stage() -> None:
    report = measured()
    assert report.mode == "latency"
    for timing in (report.engine, report.end_to_end):
        assert timing.percentile(50) == pytest.approx(10)
        assert timing.percentile(99) == pytest.approx(10)
        assert timing.mean_ms == pytest.approx(10)
        assert timing.fps == pytest.approx(100)
        assert len(timing.latencies_ms) == pytest.approx(50, abs=1)
    assert report.stages == pytest.approx({"preprocess": 0, "engine": 10, "postprocess": 0})


class DeviceEngine(KnownEngine):
    """An engine session whose device worked for 4 of the 10 ms."""

    def device_ms(self) -> float:
        return 4.0


def test_both_conventions_where_the_engine_knows_the_devices_time() -> None:
    clock = Clock()
    report = bench(runner_of(DeviceEngine(clock, 0.01)), frames(SIZE), seconds=0.1, warmup=0, clock=clock)
    assert report.engine.percentile(50) == pytest.approx(10)
    assert report.engine_without_copies is not None
    assert report.engine_without_copies.fps == pytest.approx(250)
    assert report.to_json()["engine_without_copies"]["p50_ms"] == 4
    assert "Without copies" in render(report)
    assert measured().engine_without_copies is None


def test_random_weights_are_said() -> None:
    runner, _, clock = known()
    runner.spec = replace(runner.spec, weights="random, seed 0")
    report = bench(runner, frames(SIZE), seconds=0.1, warmup=0, clock=clock)
    assert any("weights are random" in note for note in report.notes)


def test_a_batch_counts_all_its_frames() -> None:
    report = measured(batch=2)
    assert report.batch == 2
    assert report.engine.percentile(50) == pytest.approx(10)
    assert report.engine.fps == pytest.approx(200)


def test_throughput_mode_keeps_every_lane_busy() -> None:
    runner, engines, clock = known(lanes=3)
    report = bench(runner, frames(SIZE), seconds=0.5, warmup=0.1, clock=clock)
    assert (report.mode, report.lanes, report.stages) == ("throughput", 3, {})
    assert report.engine.percentile(50) == pytest.approx(30), "each waits for the two before it"
    assert report.engine.fps == pytest.approx(100)
    assert report.end_to_end.fps == pytest.approx(100)
    assert max(len(engine.batches) for engine in engines) - min(len(engine.batches) for engine in engines) <= 10
    assert any("stages overlap" in note for note in report.notes)


def test_few_steps_are_said_to_be_few() -> None:
    assert any(note.startswith("Only 50 steps") or note.startswith("Only 51 steps") for note in measured().notes)


def test_the_share_of_mixed_cells() -> None:
    assert measured().mixed_cells == pytest.approx(1 / 11), "one column of the eleven lies between the two halves"
    logits = np.zeros((2, 3, 3), np.float32)
    logits[1, 1, 1] = 1
    assert mixed_share(logits) == 1
    assert mixed_share(np.zeros((3, 4, 5), np.float32)) == 0
    assert mixed_share(np.zeros((3, 1, 5), np.float32)) == 0


def test_missing_native_code_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    runner, _, clock = known()
    monkeypatch.setattr(native, "available", lambda: False)
    report = bench(runner, frames(SIZE), seconds=0.1, warmup=0, clock=clock)
    assert any("doctor" in note for note in report.notes)


@pytest.mark.parametrize("count", [0, 3])
def test_a_batch_that_does_not_fit_is_refused(count: int) -> None:
    runner, _, clock = known()
    with pytest.raises(UsageError, match="1 to 2"):
        bench(runner, frames(SIZE) * count, clock=clock)


def test_progress_sees_three_phases_and_can_stop() -> None:
    runner, _, clock = known()
    seen: dict[str, tuple[int, int]] = {}

    def watch(phase: str, done: int, total: int) -> None:
        assert 0 <= done <= total
        seen[phase] = (done, total)

    bench(runner, frames(SIZE), seconds=0.2, warmup=0.1, clock=clock, progress=watch)
    assert seen == {"warm-up": (100, 100), "engine only": (200, 200), "end to end": (200, 200)}
    with pytest.raises(StoppedError, match="warm-up"):
        bench(runner, frames(SIZE), clock=clock, progress=stop)


def test_percentiles_are_interpolated_linearly() -> None:
    timing = Timing((1.0, 2.0, 3.0, 4.0), batch=2, seconds=0.01)
    assert timing.percentile(50) == 2.5
    assert timing.percentile(90) == pytest.approx(3.7)
    assert timing.fps == 800


def test_a_histogram_counts_every_latency() -> None:
    values = (*np.linspace(10, 20, 500).tolist(), 500.0)
    found = histogram(values)
    assert sum(found["counts"]) + found["beyond"] == 501
    assert found["beyond"] >= 1
    assert found["start_ms"] + found["width_ms"] * len(found["counts"]) < 30, "the straggler does not stretch the axis"
    assert sum(histogram((5.0, 5.0, 5.0))["counts"]) == 3


def test_the_json_report_has_the_promised_keys() -> None:
    data = json.loads(json.dumps(measured().to_json()))
    for part in ("engine", "end_to_end"):
        assert {"p50_ms", "p90_ms", "p99_ms", "mean_ms", "fps"} <= set(data[part])
    assert {"stages_ms", "environment", "model", "peak_memory_mb", "mode", "conventions"} <= set(data)
    assert {"cpu", "cores_usable", "ram_gb", "os", "python", "packages"} <= set(data["environment"])
    assert "trtexec" in data["conventions"]["engine"]


class Page(HTMLParser):
    """Collects tags and attributes, and fails on a tag that is closed out of turn."""

    VOID = frozenset({"meta"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_fetches_nothing() -> None:
    text = render(measured())
    page = Page(text)
    assert page.tags.count("svg") == 2
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not {"src", "href"} & {name for name, _ in page.attributes}
    assert "http" not in text
    assert "url(" not in text
    assert page.tags.count("title") >= 3, "the page's, and one for each bar"


def test_the_page_takes_names_as_text() -> None:
    runner, _, clock = known()
    report = bench(runner, frames(SIZE), seconds=0.1, warmup=0, clock=clock)
    report = replace(report, model={**report.model, "name": "<script>x</script>"})
    assert "<script>" not in render(report)


def test_the_drawn_street_is_the_same_each_time() -> None:
    street = drawn_street((64, 128))
    assert street.shape == (64, 128, 3)
    assert street.dtype == np.uint8
    assert np.array_equal(street, drawn_street((64, 128)))
    assert not np.array_equal(street, drawn_street((64, 128), seed=1))
