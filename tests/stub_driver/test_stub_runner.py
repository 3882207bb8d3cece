"""Runners with a fake TensorRT over real cuda.core: several frames in flight, threads, device frames, and what happens if the GPU fails."""

from __future__ import annotations

import ctypes
import functools
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as HangError
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_tensorrt import network
from helpers import frames, tiny_spec
from lane_lab import reference
from tensorrt_lab import ALLOCATED, FREED, SIZES, TensorRTLab, assert_labels, check, read
from tensorrt_plans import make_engine

from rtformer_deploy.backends import open_engine
from rtformer_deploy.errors import EngineError, ImageError, UsageError
from rtformer_deploy.image import frames as image
from rtformer_deploy.lanes.health import GpuHealth
from rtformer_deploy.nvidia.driver import current_context
from rtformer_deploy.timing.bench import bench

HANG_S = 30.0


def in_time(work: Callable[[], Any]) -> Any:
    """The value of something that must not hang."""
    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(work).result(timeout=HANG_S)
    except HangError:
        pytest.fail(f"it has not come back for {HANG_S} s")
    finally:
        pool.shutdown(wait=False)


@pytest.fixture
def elsewhere(gpu: Any) -> Iterator[int]:
    """Another context of the GPU, current in this thread as pycuda.autoinit leaves it."""
    from cuda.bindings import driver as bindings

    _, context = bindings.cuCtxCreate(None, 0, 0)
    yield int(context)
    bindings.cuCtxDestroy(context)
    gpu.set_current()


def test_a_frame_is_one_run_and_one_copy_each_way(machine: TensorRTLab) -> None:
    frame = frames((50, 70))[0]
    with open_engine(make_engine(), graphs=False) as runner:
        check(runner, [frame])
        calls = machine.calls(lambda: check(runner, [frame]))
    assert calls == {
        "queued copy pinned to device": 1,
        "queued launch preprocess_f32": 1,
        "TensorRT: execute 1": 1,
        "queued call back": 1,  # the engine's work
        "queued fill": 1,  # clears the flag
        "queued launch upsample_argmax_f32": 1,
        "queued copy device to pinned": 1,
    }


def test_one_copy_brings_the_labels_of_a_whole_batch(machine: TensorRTLab) -> None:
    with open_engine(make_engine(), graphs=False) as runner:
        given = frames(*SIZES[:3])
        calls = machine.calls(lambda: assert_labels(runner.run(given), given))
        assert calls["queued copy device to pinned"] == 1
        assert calls["queued copy pinned to device"] == 1 + 3  # the frames, and the tables of three sizes
        assert calls["TensorRT: execute 3"] == 1
        assert calls["queued launch preprocess_f32"] == calls["queued launch upsample_argmax_f32"] == 3


def test_submit_returns_before_anything_has_run_and_result_waits_for_its_own_alone(machine: TensorRTLab) -> None:
    given = [frames(SIZES[0], seed=seed)[0] for seed in range(3)]
    with open_engine(make_engine(), lanes=3, graphs=False) as runner:
        tickets = [runner.submit([frame]) for frame in given]
        assert machine.runs_done == 0
        for done, index in enumerate((1, 2, 0), 1):
            assert_labels(runner.result(tickets[index]), [given[index]])
            assert machine.runs_done == done, "the others have not run yet"


def test_lanes_take_turns(machine: TensorRTLab) -> None:
    """Three lanes take three submissions without waiting; the fourth makes the oldest one finish, and that one alone."""
    given = [frames(SIZES[0], seed=seed)[0] for seed in range(4)]
    with open_engine(make_engine(), lanes=3, graphs=False) as runner:
        for turn in range(4):
            tickets = [runner.submit([frame]) for frame in given[:3]]
            assert machine.runs_done == 4 * turn
            tickets.append(runner.submit([given[3]]))
            assert machine.runs_done == 4 * turn + 1
            assert_labels(runner.result(tickets[0]), given[:1])
            assert machine.runs_done == 4 * turn + 1, "it was the oldest that has finished"
            for index in (1, 2, 3):
                assert_labels(runner.result(tickets[index]), [given[index]])


def test_more_submissions_than_lanes_keep_every_result(machine: TensorRTLab) -> None:
    given = [frames(SIZES[seed % 4], seed=seed)[0] for seed in range(20)]
    with open_engine(make_engine(), lanes=3) as runner:
        tickets = [runner.submit([frame]) for frame in given]
        for index in random.Random(0).sample(range(20), 20):
            assert_labels(runner.result(tickets[index]), [given[index]])


def test_threads_share_a_runner(machine: TensorRTLab) -> None:
    """Four threads, four lanes, frames of several sizes at random; each result is checked."""
    pool = [frames(SIZES[seed % 4], seed=seed)[0] for seed in range(12)]
    wanted = [reference(frame) for frame in pool]

    def work(seed: int) -> int:
        rng = random.Random(seed)
        flying: list[tuple[int, Any]] = []
        checked = 0
        for _ in range(60):
            index = rng.randrange(len(pool))
            flying.append((index, runner.submit([pool[index]])))
            if len(flying) > 2:
                index, ticket = flying.pop(rng.randrange(len(flying)))
                np.testing.assert_array_equal(runner.result(ticket)[0], wanted[index])
                checked += 1
        for index, ticket in flying:
            np.testing.assert_array_equal(runner.result(ticket)[0], wanted[index])
        return checked + len(flying)

    with open_engine(make_engine(), lanes=4) as runner, ThreadPoolExecutor(4) as threads:
        assert sum(in_time(lambda: list(threads.map(work, range(4))))) == 240
        assert runner.notes == (runner.notes[0],), "nothing but the time of the start"
    assert machine.replayed() > 100


def test_closing_waits_for_what_is_in_flight_and_frees_everything(machine: TensorRTLab) -> None:
    runner = open_engine(make_engine(), lanes=4)
    for seed in range(9):
        runner.submit(frames(SIZES[seed % 4], seed=seed))
    in_time(runner.close)
    assert machine.driver.pending() == 0
    assert machine.runs_done >= 9
    assert machine.live() == 0
    assert machine.count(*FREED) == machine.count(*ALLOCATED) > 0
    assert machine.count("destroyed a stream") == 4
    assert machine.count("destroyed a graph") == machine.count("instantiated a graph") > 0


def test_memory_grows_with_the_largest_frame_only(machine: TensorRTLab) -> None:
    with open_engine(make_engine(), lanes=2) as runner:
        for size in ((64, 96), (131, 200), (33, 41)):
            check(runner, [frames(size, seed=seed)[0] for seed in range(4)])
        before = machine.live(), machine.count(*ALLOCATED)
        for seed in range(20):
            check(runner, frames(((64, 96), (131, 200), (33, 41))[seed % 3], seed=seed))
        assert (machine.live(), machine.count(*ALLOCATED)) == before


def test_tables_of_sizes_are_bounded(machine: TensorRTLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtformer_deploy.lanes.memory.TABLES", 1)
    monkeypatch.setattr("rtformer_deploy.lanes.graphs.GRAPHS", 2)
    sizes = [(height, 40) for height in range(29, 19, -1)]  # the first frame is the largest
    with open_engine(make_engine()) as runner:
        live = []
        for turn in range(4):
            for size in sizes:
                check(runner, [frames(size, seed=turn)[0]] * 2)
                live.append(machine.live())
                assert machine.count("instantiated a graph") - machine.count("destroyed a graph") <= 2
        assert max(live[4:]) <= live[3], "from the fifth size on a new size takes the place of another"
        assert machine.captured() >= 10


def test_logits_that_are_not_finite_are_that_requests_error(machine: TensorRTLab) -> None:
    with open_engine(make_engine()) as runner:
        for on_device in (False, False, False, True):
            machine.finite = False
            with pytest.raises(EngineError, match="not finite"):
                runner.result(runner.submit(frames(SIZES[0]), on_device=on_device))
            machine.finite = True
            check(runner, frames(SIZES[0]))


def test_a_refused_start_leaves_the_lane_fit(machine: TensorRTLab) -> None:
    with open_engine(make_engine(), graphs=False) as runner:
        machine.runs = False
        with pytest.raises(EngineError, match=r"could not start the engine:\n  the kernel went missing"):
            runner.run(frames(SIZES[0]))
        machine.runs = True
        check(runner, frames(*SIZES))


def test_the_callers_own_context_stays_current(machine: TensorRTLab, elsewhere: int) -> None:
    with open_engine(make_engine(), lanes=2) as runner:
        assert current_context() == elsewhere
        check(runner, frames(*SIZES, *SIZES, *SIZES))
        runner.run(frames(SIZES[0]))
        assert current_context() == elsewhere
    assert current_context() == elsewhere


def test_bench_measures_the_engine_alone_and_the_whole_way(machine: TensorRTLab) -> None:
    machine.run_s = 2e-3
    for lanes in (1, 3):
        with open_engine(make_engine(), lanes=lanes) as runner:
            report = bench(runner, frames((131, 200)), seconds=0.02, warmup=0.0)
        assert len(report.end_to_end.latencies_ms) >= 3
        assert any(note.startswith("Start: ") for note in report.notes)
        if lanes == 1:
            assert report.engine_without_copies is not None
            for engine, whole in zip(report.engine_without_copies.latencies_ms, report.engine.latencies_ms, strict=True):
                assert 2.0 <= engine <= whole


# A GPU that fails.


def test_a_broken_context_fails_every_lane_at_once(machine: TensorRTLab) -> None:
    runner = open_engine(make_engine(), lanes=4)
    check(runner, frames(*SIZES))
    tickets = [runner.submit(frames(SIZES[0], seed=seed)) for seed in range(4)]
    freed = machine.count(*FREED)
    machine.driver.break_context(after=3)

    def fails(ticket: Any) -> str:
        with pytest.raises(EngineError) as caught:
            runner.result(ticket)
        return str(caught.value)

    with ThreadPoolExecutor(4) as threads:
        said = in_time(lambda: list(threads.map(fails, tickets)))
    assert len(set(said)) == 1
    assert said[0].startswith("NVIDIA Fake (8.6) has failed, and with it every request on it: CUDA_ERROR_ILLEGAL_ADDRESS")
    assert "start the process again" in said[0]
    with pytest.raises(EngineError, match="has failed"):
        in_time(lambda: runner.submit(frames(SIZES[0])))
    with pytest.raises(EngineError, match="has failed"):
        in_time(lambda: runner.run(frames(SIZES[0])))
    in_time(runner.close)
    assert machine.count(*FREED) == freed, "memory of a broken context is left alone"


def test_threads_in_the_middle_of_work_all_hear_of_it(machine: TensorRTLab) -> None:
    runner = open_engine(make_engine(), lanes=4)
    runner.run(frames(*SIZES))
    machine.driver.break_context(after=300)

    def work(seed: int) -> str:
        try:
            for index in range(10_000):
                runner.run(frames(SIZES[index % 4], seed=seed))
        except EngineError as error:
            return error.what
        return "it worked"

    with ThreadPoolExecutor(4) as threads:
        said = in_time(lambda: list(threads.map(work, range(4))))
    assert all("has failed" in line for line in said)
    in_time(runner.close)


def test_a_lost_gpu_is_an_error_and_not_a_hang(machine: TensorRTLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtformer_deploy.lanes.opening.PATIENCE_S", 20.0)
    runner = open_engine(make_engine(), lanes=3, graphs=False)
    check(runner, frames(*SIZES))
    machine.driver.hang()
    health: Any = runner.sessions[0]._share.health  # type: ignore[attr-defined]
    assert health._patience_s == 20.0
    health._patience_s = 0.2  # only now: a busy machine is no lost GPU
    tickets = [runner.submit(frames(SIZES[0])) for _ in range(3)]
    for ticket in tickets:
        with pytest.raises(EngineError, match=r"has failed.*it has not finished a request for 0\.2 s"):
            in_time(functools.partial(runner.result, ticket))
    with pytest.raises(EngineError, match="has failed"):
        in_time(lambda: runner.submit(frames(SIZES[0])))
    in_time(runner.close)


def test_one_lane_that_waits_hears_from_another(machine: TensorRTLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The patience is a minute; what another lane finds out does not take that long."""
    shared: list[GpuHealth] = []

    def make(name: str, patience_s: float) -> GpuHealth:
        shared.append(GpuHealth(name, patience_s))
        return shared[-1]

    monkeypatch.setattr("rtformer_deploy.lanes.opening.GpuHealth", make)
    with open_engine(make_engine(), lanes=2) as runner:
        machine.driver.hang()
        ticket = runner.submit(frames(SIZES[0]))
        (health,) = shared
        threading.Timer(0.1, lambda: health.fail("somebody saw it")).start()
        with pytest.raises(EngineError, match="somebody saw it"):
            in_time(lambda: runner.result(ticket))


def test_an_error_that_breaks_nothing_is_that_requests_alone(machine: TensorRTLab) -> None:
    with open_engine(make_engine(), lanes=2) as runner:
        check(runner, frames(SIZES[0]))
        machine.driver.memory_limit(machine.driver.used() + 100)
        with pytest.raises(EngineError, match=r"CUDA refused on NVIDIA Fake \(8.6\): CUDA_ERROR_OUT_OF_MEMORY"):
            runner.run(frames((300, 400)))
        machine.driver.memory_limit(1 << 30)
        check(runner, [*frames(*SIZES), *frames((300, 400))])


# Frames, streams and label maps on the device.


def test_frames_on_the_device_are_not_copied(machine: TensorRTLab) -> None:
    given = frames(*SIZES)
    with open_engine(make_engine(), lanes=2) as runner:
        check(runner, given)
        check(runner, given)
        for _ in range(4):
            for frame in given:
                array = machine.caller_array(frame)
                happened = machine.during(lambda array=array, frame=frame: assert_labels(runner.result(runner.submit([array])), [frame]))  # type: ignore[misc]
                assert "queued copy pinned to device" not in happened
    assert machine.replayed() > 0


def test_label_maps_stay_on_the_device(machine: TensorRTLab) -> None:
    given = frames(*SIZES)
    with open_engine(make_engine(), lanes=2) as runner:
        for _ in range(4):
            for frame in given:
                for source in (frame, machine.caller_array(frame)):
                    labels = runner.result(runner.submit([source], on_device=True))[0]
                    shown: Any = labels
                    assert shown.__cuda_array_interface__["typestr"] == "|u1"
                    np.testing.assert_array_equal(read(labels), reference(frame))
        del labels, shown
    assert machine.driver.refusals() == []


@pytest.mark.parametrize("how", ["protocol", "handle", "pycuda", "torch", "interface"])
def test_a_callers_stream_orders_what_comes_before_and_after(machine: TensorRTLab, gpu: Any, how: str) -> None:
    first, second, third = (frames(SIZES[1], seed=seed)[0] for seed in range(3))
    with open_engine(make_engine(), lanes=1) as runner:
        stream = gpu.create_stream()
        handle = int(stream.handle)
        shown = {
            "protocol": type("Any", (), {"__cuda_stream__": lambda self: (0, handle)})(),
            "handle": handle,
            "pycuda": SimpleNamespace(handle=handle),
            "torch": SimpleNamespace(cuda_stream=handle),
            "interface": None,
        }[how]
        kept = [machine.pinned(second), machine.pinned(third)]
        for _ in range(3):
            array = machine.caller_array(first, stream=handle if how == "interface" else None)
            array.buffer.copy_from(kept[0], stream=stream)  # not run yet: the runner has to wait for it
            ticket = runner.submit([array], stream=shown)
            array.buffer.copy_from(kept[1], stream=stream)  # must wait until the runner has read the frame
            stream.sync()
            np.testing.assert_array_equal(read(array), third)
            assert_labels(runner.result(ticket), [second])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda machine: machine.caller_array(np.zeros((8, 9, 3), np.float32)), ImageError, r"Frame 0 is float32 \(8, 9, 3\) on the GPU"),
        (lambda machine: machine.caller_array(np.zeros((8, 9, 4), np.uint8)), ImageError, r"Frame 0 is uint8 \(8, 9, 4\) on the GPU"),
        (
            lambda machine: machine.caller_array(frames((64, 96))[0], strides=(600, 3, 1)),
            ImageError,
            r"not contiguous: its strides are \(600, 3, 1\), not \(288, 3, 1\)",
        ),
        (lambda machine: machine.caller_array(frames((8, 9))[0], device=1), UsageError, "on GPU 1; this runner works on GPU 0"),
        (
            lambda machine: machine.caller_array(frames((8, 9))[0], data=(12345, False)),
            UsageError,
            "CUDA knows no device memory at its address",
        ),
    ],
)
def test_device_frames_that_cannot_be_taken(
    machine: TensorRTLab, make: Callable[[TensorRTLab], Any], error: type[Exception], message: str
) -> None:
    with open_engine(make_engine()) as runner:
        with pytest.raises(error, match=message):
            runner.submit([make(machine)])
        check(runner, frames(SIZES[0]))


def test_memory_and_streams_of_another_context(machine: TensorRTLab, elsewhere: int) -> None:
    address, stream = ctypes.c_uint64(), ctypes.c_void_p()
    driver = machine.driver.library
    assert driver.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(8 * 9 * 3)) == 0
    assert driver.cuStreamCreate(ctypes.byref(stream), 0) == 0
    array = machine.caller_array(frames((8, 9))[0])
    theirs = machine.caller_array(frames((8, 9))[0], data=(address.value, False))
    with open_engine(make_engine()) as runner:
        with pytest.raises(UsageError, match=r"import pycuda\.autoprimaryctx instead"):
            runner.submit([theirs])
        with pytest.raises(UsageError, match=r"stream belongs to another CUDA context.*\n.*pycuda.autoprimaryctx"):
            runner.submit([array], stream=stream.value)
        check(runner, frames(SIZES[0]))
    assert driver.cuStreamDestroy_v2(stream) == 0
    assert driver.cuMemFree_v2(address) == 0


def test_calls_that_do_not_fit(machine: TensorRTLab, gpu: Any) -> None:
    frame = frames(SIZES[0])[0]
    with open_engine(make_engine()) as runner:
        array = machine.caller_array(frame)
        with pytest.raises(UsageError, match="str is no CUDA stream"):
            runner.submit([array], stream="0")
        with pytest.raises(UsageError, match="Some of the frames are on the GPU and some in host memory"):
            runner.submit([array, frame])
        with pytest.raises(UsageError, match="A stream orders frames that are on the GPU"):
            runner.submit([frame], stream=gpu.create_stream())
        check(runner, [frame])


def test_an_engine_that_gives_labels_gives_them_in_host_memory(machine: TensorRTLab) -> None:
    machine.io = {"input": "FLOAT", "labels": "UINT8"}
    spec = tiny_spec("batch", "labels")
    with open_engine(make_engine("labels")) as runner:
        with pytest.raises(UsageError, match="--head labels gives its label maps in host memory"):
            runner.submit(frames(SIZES[0]), on_device=True)
        for _ in range(3):
            for frame in frames(*SIZES):
                made = network(image.preprocess(frame, spec.size, spec.mean, spec.std, spec.resize)[None])[0]
                wanted = made.repeat(8, 1).repeat(8, 2).argmax(0).astype(np.uint8)
                expected = image.resize_labels(wanted, frame.shape[:2], spec.size, spec.resize)
                np.testing.assert_array_equal(runner.run([frame])[0], expected)
                np.testing.assert_array_equal(runner.result(runner.submit([machine.caller_array(frame)]))[0], expected)
