"""What every engine behind lanes must do on a GPU. tests/gpu runs it on a real one, tests/stub_driver on one that is none.

The tests take fixtures: `kind` and `case` (what runs), `extent` (how much), `caller` (whose frames are on the GPU), `break_lanes`.
"""

from __future__ import annotations

import dataclasses
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpu_callers import Caller
from gpu_engines import Batch
from gpu_kinds import Kind
from numpy.typing import NDArray
from smooth_frames import frames

from rtformer_deploy.errors import EngineError, UsageError
from rtformer_deploy.lanes.device_arrays import DeviceLabels
from rtformer_deploy.runtime.frame_runner import FrameRunner
from rtformer_deploy.types import Frame, LabelMap, PrecisionName

MIB = 2**20
Case = tuple[Kind, PrecisionName]


@dataclasses.dataclass(frozen=True)
class Extent:
    """Frames of these (H, W); how many go through four lanes, from a pool of so many, after so many of each thread as warm-up.

    `grows` is by how many bytes the GPU's memory in use may grow over a test that gives everything back.
    """

    sizes: tuple[tuple[int, int], ...]
    frames: int
    pool: int
    warmup: int
    grows: int


@pytest.mark.parametrize("graphs", [True, False])
def test_label_maps_are_the_cpus_bit_by_bit(case: Case, extent: Extent, graphs: bool) -> None:
    kind, precision = case
    with kind.open(precision, graphs=graphs) as runner:
        for seed in range(4):
            for frame in frames(*extent.sizes, seed=seed):
                np.testing.assert_array_equal(runner.run([frame])[0], kind.labels(runner, frame))
        print(f"{kind.name} {precision} graphs {graphs}: {runner.notes}")
        assert graph_notes(runner) == []
        assert captured(runner) == (graphs and kind.captures)


def test_logits_are_those_of_the_cpus_preprocessing(case: Case, extent: Extent) -> None:
    kind, precision = case
    with kind.open(precision) as runner:
        for frame in frames(*extent.sizes):
            np.testing.assert_array_equal(runner.logits([frame])[0], kind.logits(runner, frame))


@pytest.mark.parametrize("graphs", [True, False])
def test_an_engine_that_gives_labels(kind: Kind, extent: Extent, graphs: bool) -> None:
    if "labels" not in kind.heads:
        pytest.skip(f"{kind.name} gives logits only")
    with kind.open("fp16", head="labels", graphs=graphs) as runner:
        for seed in range(3):
            for frame in frames(*extent.sizes, seed=seed):
                np.testing.assert_array_equal(runner.run([frame])[0], kind.labels(runner, frame))


def test_batches_of_frames_of_several_sizes(kind: Kind, extent: Extent) -> None:
    batch: Batch = (1, 2, 4)
    with kind.open("fp32", batch, lanes=2) as runner:
        given = frames(*extent.sizes, *extent.sizes, extent.sizes[0])
        alone = [runner.run([frame])[0] for frame in given]
        for frame, labels in zip(given, alone, strict=True):
            np.testing.assert_array_equal(labels, kind.labels(runner, frame))
        most = 0 if kind.exact else 1e-3  # a larger batch may be computed by other kernels
        for _ in range(3):
            for labels, single in zip(runner.run(given), alone, strict=True):
                assert np.mean(labels != single) <= most
        assert graph_notes(runner) == []


def test_frames_through_four_lanes_and_four_threads(case: Case, extent: Extent) -> None:
    """Ten thousand on a GPU: every label map is compared, and memory does not grow."""
    kind, precision = case
    with kind.open(precision, graphs=False) as single:
        pool = [frames(extent.sizes[index % len(extent.sizes)], seed=index)[0] for index in range(extent.pool)]
        wanted = [kind.labels(single, frame) for frame in pool]
    with kind.open(precision, lanes=4) as runner:
        assert _through(runner, pool, wanted, 4 * extent.warmup) == 4 * extent.warmup  # every shape captured in every lane
        lane: Any = runner.sessions[0]
        with lane.share.current():
            before = free_memory(), resident()
            begin = time.perf_counter()
            assert _through(runner, pool, wanted, extent.frames) == extent.frames
            seconds = time.perf_counter() - begin
            after = free_memory(), resident()
        print(f"{kind.name} {precision}: {extent.frames / seconds:.0f} frames a second, checks included; {runner.notes}")
        assert before[0] - after[0] <= extent.grows
        assert after[1] - before[1] < 64 * MIB
        assert graph_notes(runner) == []


def _through(runner: FrameRunner, pool: list[Frame], wanted: list[LabelMap], count: int) -> int:
    """Runs frames from the pool in four threads, up to three of each in flight, their results asked for in any order; the count checked.

    Every other frame is written into the runner's own memory. The newest label maps are kept, and compared again when others have come.
    """

    def work(seed: int) -> int:
        rng = random.Random(seed)
        flying: list[tuple[int, Any]] = []
        kept: deque[tuple[int, LabelMap]] = deque(maxlen=4)
        done = 0
        for left in range(count // 4, 0, -1):
            index = rng.randrange(len(pool))
            flying.append((index, runner.submit([_own(runner, pool[index]) if left % 2 else pool[index]])))
            while len(flying) > 2 or (left == 1 and flying):
                index, ticket = flying.pop(rng.randrange(len(flying)))
                kept.append((index, runner.result(ticket)[0]))
                for earlier, labels in (kept[0], kept[-1]):
                    np.testing.assert_array_equal(labels, wanted[earlier])
                done += 1
        return done

    with ThreadPoolExecutor(4) as threads:
        return sum(threads.map(work, range(4)))


def _own(runner: FrameRunner, frame: Frame) -> Frame:
    """The frame in memory of the runner's."""
    own = runner.frame((frame.shape[0], frame.shape[1]))
    own[...] = frame
    return own


def test_own_frames_and_label_maps_that_are_kept(kind: Kind, extent: Extent) -> None:
    """More of both than the runner lends: what it lent is not written while somebody reads it."""
    with kind.open("fp32", lanes=2) as runner:
        kept = []
        for seed in range(12):
            (frame,) = frames(extent.sizes[seed % 2], seed=seed)
            own = _own(runner, frame)
            kept.append((frame, own, runner.result(runner.submit([own]))[0]))
        for frame, own, labels in kept:
            np.testing.assert_array_equal(own, frame)
            np.testing.assert_array_equal(labels, kind.labels(runner, frame))
        assert graph_notes(runner) == []


@pytest.mark.parametrize("on_device", [False, True])
def test_a_callers_frames_and_streams_are_taken_as_they_are(kind: Kind, extent: Extent, caller: Caller, on_device: bool) -> None:
    with kind.open("fp16", lanes=2) as runner:
        for seed in range(4):
            for frame, other in zip(frames(*extent.sizes, seed=seed), frames(*extent.sizes, seed=99), strict=True):
                wanted = kind.labels(runner, frame)
                array = caller.late(frame, other)
                ticket = runner.submit([array], stream=caller.stream, on_device=on_device)
                caller.overwrite(array)  # waits until the runner has read the frame
                labels = runner.result(ticket)[0]
                given: NDArray[np.uint8] = caller.to_host(labels) if isinstance(labels, DeviceLabels) else labels
                np.testing.assert_array_equal(given, wanted)


def test_what_is_no_device_memory_is_refused(kind: Kind, extent: Extent) -> None:
    fake = dataclasses.make_dataclass("Fake", [("__cuda_array_interface__", dict)])
    with kind.open("fp16") as runner:
        with pytest.raises(UsageError, match="CUDA knows no device memory"):
            runner.submit([fake({"shape": (8, 8, 3), "typestr": "|u1", "data": (4096, False), "version": 3})])
        (frame,) = frames(extent.sizes[0])
        np.testing.assert_array_equal(runner.run([frame])[0], kind.labels(runner, frame))


def test_closing_gives_the_gpus_memory_back(kind: Kind, extent: Extent) -> None:
    def cycle() -> int:
        runner = kind.open("fp16", (1, 2, 4), lanes=2)
        with runner.sessions[0].share.current():  # type: ignore[attr-defined]
            for seed in range(3):
                runner.submit(frames(extent.sizes[0], seed=seed))
            runner.close()  # with requests in flight that nobody asked for
            return free_memory()

    cycle()
    free = [cycle() for _ in range(4)]
    assert free[0] - free[-1] <= extent.grows, free


def test_a_cuda_error_in_the_middle_fails_every_lane_promptly(kind: Kind, break_lanes: Callable[[Kind, Path], str], tmp_path: Path) -> None:
    assert "has failed, and with it every request on it" in break_lanes(kind, tmp_path)


def broken(runner: FrameRunner, frame: Frame, break_context: Callable[[], object], busy_s: float) -> str:
    """Keeps every lane busy, breaks the GPU's context, and checks that all of them fail soon; what the first one said."""
    said: dict[int, tuple[float, str]] = {}

    def work(index: int) -> None:
        try:
            while True:
                runner.result(runner.submit([frame]))
        except EngineError as error:
            said[index] = (time.monotonic(), error.what)

    threads = [threading.Thread(target=work, args=(index,), daemon=True) for index in range(len(runner.sessions))]
    for thread in threads:
        thread.start()
    time.sleep(busy_s)
    begin = time.monotonic()
    break_context()
    for thread in threads:
        thread.join(20)
    assert len(said) == len(threads), said
    assert max(when for when, _ in said.values()) - begin < 10
    assert all("has failed, and with it every request on it" in what for _, what in said.values()), said
    runner.close()
    return said[0][1]


def graph_notes(runner: FrameRunner) -> list[str]:
    return [note for note in runner.notes if note.startswith("CUDA graphs")]


def captured(runner: FrameRunner) -> bool:
    """Whether a lane has a graph that it trusts; which of them had the frames is the runner's affair."""
    lanes: list[Any] = list(runner.sessions)
    return any(lane._graphs is not None and any(entry.graph is not None for entry in lane._graphs._entries.values()) for lane in lanes)


def free_memory() -> int:
    """The GPU's, in bytes; its context is current."""
    from cuda.bindings import driver

    _, free, _ = driver.cuMemGetInfo()
    return int(free)


def resident() -> int:
    """This process's memory in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
