"""Lanes over a fake GPU: a frame's whole way, several in flight, threads, device frames, and what happens when the GPU fails."""

from __future__ import annotations

import functools
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as HangError
from typing import Any

import numpy as np
import pytest
from helpers import frames, tiny_spec
from lane_checks import SIZES, check, reference
from null import PRIMARY, Stream
from null_engines import install, make_engine
from null_tensorrt import NullTensorRT, network
from numpy.typing import NDArray

from rtformer_deploy.backends import open_engine
from rtformer_deploy.errors import EngineError, ImageError, UsageError
from rtformer_deploy.image import frames as image
from rtformer_deploy.lanes.health import GpuHealth
from rtformer_deploy.timing.bench import bench

HANG_S = 30.0


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> NullTensorRT:
    return install(monkeypatch)


def in_time(work: Callable[[], Any]) -> Any:
    """The value of something that must not hang."""
    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(work).result(timeout=HANG_S)
    except HangError:
        pytest.fail(f"it has not come back for {HANG_S} s")
    finally:
        pool.shutdown(wait=False)


@pytest.mark.parametrize("graphs", [True, False])
def test_label_maps_are_those_of_the_cpu(machine: NullTensorRT, graphs: bool) -> None:
    with open_engine(make_engine(), lanes=2, graphs=graphs) as runner:
        for _ in range(3):
            given = frames(*SIZES, (64, 96))
            for labels, frame in zip(runner.run(given), given, strict=True):
                np.testing.assert_array_equal(labels, reference(frame))


def test_a_frame_is_one_run_and_one_copy_each_way(machine: NullTensorRT) -> None:
    frame = frames((50, 70))[0]
    with open_engine(make_engine(), graphs=False) as runner:
        check(runner, [frame])
        calls = machine.calls(lambda: check(runner, [frame]))
    assert calls == {
        "copy pinned to device": 1,
        "launch preprocess": 1,
        "execute 1": 1,
        "fill": 1,  # clears the flag
        "launch upsample_argmax": 1,
        "copy device to pinned": 1,
    }


def test_one_copy_brings_the_labels_of_a_whole_batch(machine: NullTensorRT) -> None:
    with open_engine(make_engine(), graphs=False) as runner:
        given = frames(*SIZES[:3])

        def run() -> None:
            for labels, frame in zip(runner.run(given), given, strict=True):
                np.testing.assert_array_equal(labels, reference(frame))

        calls = machine.calls(run)
        assert calls["copy device to pinned"] == 1
        assert calls["copy pinned to device"] == 1 + 3  # the frames, and the tables of three sizes
        assert calls["execute 3"] == 1
        assert calls["launch preprocess"] == calls["launch upsample_argmax"] == 3


def test_submit_returns_before_anything_has_run_and_result_waits_for_its_own_alone(machine: NullTensorRT) -> None:
    given = [frames(SIZES[0], seed=seed)[0] for seed in range(3)]
    with open_engine(make_engine(), lanes=3, graphs=False) as runner:
        tickets = [runner.submit([frame]) for frame in given]
        assert machine.runs_done == 0
        for done, index in enumerate((1, 2, 0), 1):
            np.testing.assert_array_equal(runner.result(tickets[index])[0], reference(given[index]))
            assert machine.runs_done == done, "the others have not run yet"


def test_lanes_take_turns(machine: NullTensorRT) -> None:
    """Three lanes take three submissions without waiting; the fourth makes the oldest one finish, and that one alone."""
    given = [frames(SIZES[0], seed=seed)[0] for seed in range(4)]
    with open_engine(make_engine(), lanes=3, graphs=False) as runner:
        for turn in range(4):
            tickets = [runner.submit([frame]) for frame in given[:3]]
            assert machine.runs_done == 4 * turn
            tickets.append(runner.submit([given[3]]))
            assert machine.runs_done == 4 * turn + 1
            np.testing.assert_array_equal(runner.result(tickets[0])[0], reference(given[0]))
            assert machine.runs_done == 4 * turn + 1, "it was the oldest that has finished"
            for index in (1, 2, 3):
                np.testing.assert_array_equal(runner.result(tickets[index])[0], reference(given[index]))


def test_more_submissions_than_lanes_keep_every_result(machine: NullTensorRT) -> None:
    given = [frames(SIZES[seed % 4], seed=seed)[0] for seed in range(20)]
    with open_engine(make_engine(), lanes=3) as runner:
        tickets = [runner.submit([frame]) for frame in given]
        for index in random.Random(0).sample(range(20), 20):
            np.testing.assert_array_equal(runner.result(tickets[index])[0], reference(given[index]))


def test_threads_share_a_runner(machine: NullTensorRT) -> None:
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
    assert machine.count("replay") > 100


def test_closing_waits_for_what_is_in_flight_and_frees_everything(machine: NullTensorRT) -> None:
    runner = open_engine(make_engine(), lanes=4)
    for seed in range(9):
        runner.submit(frames(SIZES[seed % 4], seed=seed))
    in_time(runner.close)
    assert all(not stream.queue and stream.closed for stream in machine.streams.values())
    assert machine.live() == 0
    assert machine.count("free") == machine.count("allocate")
    assert machine.count("close graph") == machine.count("capture") > 0


def test_memory_grows_with_the_largest_frame_only(machine: NullTensorRT) -> None:
    with open_engine(make_engine(), lanes=2) as runner:
        for size in ((64, 96), (131, 200), (33, 41)):
            check(runner, [frames(size, seed=seed)[0] for seed in range(4)])
        before = machine.live(), machine.count("allocate")
        for seed in range(20):
            check(runner, frames(((64, 96), (131, 200), (33, 41))[seed % 3], seed=seed))
        assert (machine.live(), machine.count("allocate")) == before


def test_tables_of_sizes_are_bounded(machine: NullTensorRT, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtformer_deploy.lanes.memory.TABLES", 1)
    monkeypatch.setattr("rtformer_deploy.lanes.graphs.GRAPHS", 2)
    sizes = [(height, 40) for height in range(29, 19, -1)]  # the first frame is the largest
    with open_engine(make_engine()) as runner:
        live = []
        for turn in range(4):
            for size in sizes:
                check(runner, [frames(size, seed=turn)[0]] * 2)
                live.append(machine.live())
                assert machine.count("capture") - machine.count("close graph") <= 2
        assert max(live[4:]) <= live[3], "from the fifth size on a new size takes the place of another"
        assert machine.count("capture") >= 10


def test_logits(machine: NullTensorRT) -> None:
    spec = tiny_spec()
    given = frames(*SIZES)
    with open_engine(make_engine(), lanes=2) as runner:
        for _ in range(3):
            wanted = [network(image.preprocess(frame, spec.size, spec.mean, spec.std, spec.resize)[None])[0] for frame in given]
            np.testing.assert_array_equal(runner.logits(given), np.stack(wanted))
            check(runner, given)


def test_logits_that_are_not_finite_are_that_requests_error(machine: NullTensorRT) -> None:
    with open_engine(make_engine()) as runner:
        for _ in range(3):
            machine.finite = False
            with pytest.raises(EngineError, match="not finite"):
                runner.run(frames(SIZES[0]))
            machine.finite = True
            check(runner, frames(SIZES[0]))


def test_a_refused_start_leaves_the_lane_fit(machine: NullTensorRT) -> None:
    with open_engine(make_engine(), graphs=False) as runner:
        machine.runs = False
        with pytest.raises(EngineError, match=r"could not start the engine:\n  the kernel went missing"):
            runner.run(frames(SIZES[0]))
        machine.runs = True
        check(runner, frames(*SIZES))


def test_the_callers_own_context_stays_current(machine: NullTensorRT) -> None:
    machine.here.context = 7  # as pycuda.autoinit leaves it
    with open_engine(make_engine(), lanes=2) as runner:
        assert machine.here.context == 7
        check(runner, frames(*SIZES, *SIZES, *SIZES))
        runner.run(frames(SIZES[0]))
        assert machine.here.context == 7
    assert machine.here.context == 7


def test_bench_measures_the_engine_alone_and_the_whole_way(machine: NullTensorRT) -> None:
    for lanes in (1, 3):
        with open_engine(make_engine(), lanes=lanes) as runner:
            report = bench(runner, frames((131, 200)), seconds=0.02, warmup=0.0)
        assert len(report.end_to_end.latencies_ms) >= 3
        assert any(note.startswith("Start: ") for note in report.notes)
        if lanes == 1:
            assert report.engine_without_copies is not None
            assert report.engine_without_copies.latencies_ms[0] == pytest.approx(1.5)


# A GPU that fails.


def test_a_broken_context_fails_every_lane_at_once(machine: NullTensorRT) -> None:
    runner = open_engine(make_engine(), lanes=4)
    check(runner, frames(*SIZES))
    tickets = [runner.submit(frames(SIZES[0], seed=seed)) for seed in range(4)]
    freed = machine.count("free")
    machine.break_at = 3

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
    assert machine.count("free") == freed, "memory of a broken context is left alone"


def test_threads_in_the_middle_of_work_all_hear_of_it(machine: NullTensorRT) -> None:
    runner = open_engine(make_engine(), lanes=4)
    runner.run(frames(*SIZES))
    machine.break_at = 300

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


def test_a_lost_gpu_is_an_error_and_not_a_hang(machine: NullTensorRT, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtformer_deploy.backends.tensorrt.run.PATIENCE_S", 0.2)
    runner = open_engine(make_engine(), lanes=3, graphs=False)
    check(runner, frames(*SIZES))
    machine.lost = True
    tickets = [runner.submit(frames(SIZES[0])) for _ in range(3)]
    for ticket in tickets:
        with pytest.raises(EngineError, match=r"has failed.*it has not finished a request for 0\.2 s"):
            in_time(functools.partial(runner.result, ticket))
    with pytest.raises(EngineError, match="has failed"):
        in_time(lambda: runner.submit(frames(SIZES[0])))
    in_time(runner.close)


def test_one_lane_that_waits_hears_from_another(machine: NullTensorRT, monkeypatch: pytest.MonkeyPatch) -> None:
    """The patience is a minute; what another lane finds out does not take that long."""
    shared: list[GpuHealth] = []

    def make(name: str, patience_s: float) -> GpuHealth:
        shared.append(GpuHealth(name, patience_s))
        return shared[-1]

    monkeypatch.setattr("rtformer_deploy.backends.tensorrt.run.GpuHealth", make)
    with open_engine(make_engine(), lanes=2) as runner:
        machine.lost = True
        ticket = runner.submit(frames(SIZES[0]))
        (health,) = shared
        threading.Timer(0.1, lambda: health.fail("somebody saw it")).start()
        with pytest.raises(EngineError, match="somebody saw it"):
            in_time(lambda: runner.result(ticket))


def test_an_error_that_breaks_nothing_is_that_requests_alone(machine: NullTensorRT, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_engine(make_engine(), lanes=2) as runner:
        check(runner, frames(SIZES[0]))

        def full(*_: object, **__: object) -> None:
            raise RuntimeError("CUDA_ERROR_OUT_OF_MEMORY")

        with monkeypatch.context() as patched:
            patched.setattr("null.Device.allocate", full)
            with pytest.raises(EngineError, match=r"CUDA refused on NVIDIA Fake \(8.6\): CUDA_ERROR_OUT_OF_MEMORY"):
                runner.run(frames((300, 400)))
        check(runner, [*frames(*SIZES), *frames((300, 400))])


# Frames, streams and label maps on the device.


def test_frames_on_the_device_are_not_copied(machine: NullTensorRT) -> None:
    given = frames(*SIZES)
    with open_engine(make_engine(), lanes=2) as runner:
        check(runner, given)
        check(runner, given)
        for _ in range(4):
            for frame in given:
                before = len(machine.journal)
                ticket = runner.submit([machine.caller_array(frame)])
                np.testing.assert_array_equal(runner.result(ticket)[0], reference(frame))
                assert "copy pinned to device" not in machine.journal[before:]
    assert machine.count("replay") > 0


def test_label_maps_stay_on_the_device(machine: NullTensorRT) -> None:
    given = frames(*SIZES)
    with open_engine(make_engine(), lanes=2) as runner:
        for _ in range(4):
            for frame in given:
                for source in (frame, machine.caller_array(frame)):
                    labels = runner.result(runner.submit([source], on_device=True))[0]
                    shown: Any = labels
                    assert shown.__cuda_array_interface__["typestr"] == "|u1"
                    np.testing.assert_array_equal(machine.read(labels), reference(frame))
        machine.finite = False
        with pytest.raises(EngineError, match="not finite"):
            runner.result(runner.submit(frames(SIZES[0]), on_device=True))
        del labels, shown
    assert machine.count("close stream") == 2


@pytest.mark.parametrize("how", ["protocol", "handle", "pycuda", "torch", "interface"])
def test_a_callers_stream_orders_what_comes_before_and_after(machine: NullTensorRT, how: str) -> None:
    first, second, third = (frames(SIZES[1], seed=seed)[0] for seed in range(3))
    with open_engine(make_engine(), lanes=1) as runner:
        machine.here.context = PRIMARY
        stream = Stream(machine, 0)
        shown = {
            "protocol": type("Any", (), {"__cuda_stream__": lambda self: (0, stream.handle)})(),
            "handle": stream.handle,
            "pycuda": type("Any", (), {"handle": stream.handle})(),
            "torch": type("Any", (), {"cuda_stream": stream.handle})(),
            "interface": None,
        }[how]
        for _ in range(3):
            array = machine.caller_array(first)
            if how == "interface":
                array.__cuda_array_interface__["stream"] = stream.handle

            def write(frame: NDArray[np.uint8], array: Any = array) -> None:
                stream.enqueue(lambda: array.buffer.bytes.__setitem__(slice(None), frame.reshape(-1)))

            write(second)  # not run yet: the runner has to wait for it
            ticket = runner.submit([array], stream=shown)
            write(third)  # must wait until the runner has read the frame
            stream.sync()
            np.testing.assert_array_equal(machine.read(array), third)
            np.testing.assert_array_equal(runner.result(ticket)[0], reference(second))


def strided(machine: NullTensorRT) -> Any:
    array = machine.caller_array(frames((64, 96))[0])
    array.__cuda_array_interface__["strides"] = (600, 3, 1)
    return array


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda machine: machine.caller_array(np.zeros((8, 9, 3), np.float32)), ImageError, r"Frame 0 is float32 \(8, 9, 3\) on the GPU"),
        (lambda machine: machine.caller_array(np.zeros((8, 9, 4), np.uint8)), ImageError, r"Frame 0 is uint8 \(8, 9, 4\) on the GPU"),
        (strided, ImageError, r"not contiguous: its strides are \(600, 3, 1\), not \(288, 3, 1\)"),
        (lambda machine: machine.caller_array(frames((8, 9))[0], device=1), UsageError, "on GPU 1; this runner works on GPU 0"),
        (lambda machine: machine.caller_array(frames((8, 9))[0], context=7), UsageError, "import pycuda.autoprimaryctx instead"),
    ],
)
def test_device_frames_that_cannot_be_taken(
    machine: NullTensorRT, make: Callable[[NullTensorRT], Any], error: type[Exception], message: str
) -> None:
    with open_engine(make_engine()) as runner:
        with pytest.raises(error, match=message):
            runner.submit([make(machine)])
        check(runner, frames(SIZES[0]))


def test_memory_that_cuda_does_not_know(machine: NullTensorRT) -> None:
    array = machine.caller_array(frames((8, 9))[0])
    told = array.__cuda_array_interface__
    del machine.foreign[told["data"][0]]
    told["data"] = (12345, False)
    with open_engine(make_engine()) as runner, pytest.raises(UsageError, match="CUDA knows no device memory at its address"):
        runner.submit([array])


def test_calls_that_do_not_fit(machine: NullTensorRT) -> None:
    frame = frames(SIZES[0])[0]
    with open_engine(make_engine()) as runner:
        array = machine.caller_array(frame)
        machine.here.context = PRIMARY
        stream = Stream(machine, 0)
        machine.foreign[stream.handle] = (0, 7)
        with pytest.raises(UsageError, match=r"stream belongs to another CUDA context.*\n.*pycuda.autoprimaryctx"):
            runner.submit([array], stream=stream.handle)
        with pytest.raises(UsageError, match="str is no CUDA stream"):
            runner.submit([array], stream="0")
        with pytest.raises(UsageError, match="Some of the frames are on the GPU and some in host memory"):
            runner.submit([array, frame])
        with pytest.raises(UsageError, match="A stream orders frames that are on the GPU"):
            runner.submit([frame], stream=stream.handle)
        check(runner, [frame])


def test_an_engine_that_gives_labels_gives_them_in_host_memory(machine: NullTensorRT) -> None:
    machine.io = {"input": "FLOAT", "labels": "UINT8"}
    machine.spec = tiny_spec("batch", "labels")
    spec = machine.spec
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
