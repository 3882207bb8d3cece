"""Capture and graphs of the stub driver through cuda.core: what is forbidden fails by name, replays read memory as it is then."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from stub import StubDriver
from stub_lab import Lab, Told, bytes_at

UNSUPPORTED, INVALIDATED, UNMATCHED, UNJOINED, ISOLATION, IMPLICIT, CAPTURED_EVENT, WRONG_THREAD = 900, 901, 903, 904, 905, 906, 907, 908
MERGE, ILLEGAL_STATE = 902, 401
GLOBAL, THREAD_LOCAL, RELAXED = 0, 1, 2
ACTIVE, SPOILED = 1, 2
SIZE = 1000


def status(lab: Lab, stream: Any) -> int:
    found = ctypes.c_int()
    assert lab.raw("cuStreamIsCapturing", int(stream.handle), ctypes.byref(found)) == 0
    return found.value


def end(lab: Lab, stream: Any) -> int:
    graph = ctypes.c_void_p()
    code = lab.raw("cuStreamEndCapture", int(stream.handle), ctypes.byref(graph))
    if code == 0:
        lab.raw("cuGraphDestroy", graph)
    else:
        assert graph.value is None
    return code


@contextlib.contextmanager
def capturing(lab: Lab, stream: Any, mode: int = THREAD_LOCAL) -> Iterator[None]:
    assert lab.raw("cuStreamBeginCapture_v2", int(stream.handle), mode) == 0
    try:
        yield
    finally:
        if status(lab, stream):
            end(lab, stream)


def graph_of(stream: Any, work: Callable[[], object]) -> Any:
    """As lane_graphs captures."""
    builder = stream.create_graph_builder()
    builder.begin_building("thread_local")
    work()
    graph = builder.end_building().complete()
    builder.close()
    return graph


def in_thread(lab: Lab, work: Callable[[], int]) -> int:
    codes: list[int] = []

    def run() -> None:
        lab.gpu.set_current()
        codes.append(work())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    return codes[0]


# Replays.


def test_captured_work_runs_only_when_its_graph_is_launched_and_waited_for(lab: Lab, driver: StubDriver) -> None:
    stream = lab.stream()
    buffer = lab.device(SIZE, stream)
    graph = graph_of(stream, lambda: buffer.fill(3, stream=stream))
    stream.sync()
    assert not (lab.now(buffer) == 3).any()
    graph.launch(stream)
    assert not (lab.now(buffer) == 3).any()
    stream.sync()
    assert (lab.now(buffer) == 3).all()
    assert any(line.startswith("captured fill 1000 bytes") for line in driver.log())


def test_a_replay_reads_memory_as_it_is_then_in_its_place_in_the_stream(lab: Lab) -> None:
    stream = lab.stream()
    buffer = lab.device(SIZE, stream)
    (source, written), (target, shown) = lab.pinned(SIZE, 1), lab.pinned(SIZE)

    def work() -> None:
        buffer.copy_from(source, stream=stream)
        buffer.copy_to(target, stream=stream)

    graph = graph_of(stream, work)
    for value in (2, 3):
        written[:] = value
        graph.launch(stream)
        stream.sync()
        assert (shown == value).all()
    graph.launch(stream)
    buffer.fill(9, stream=stream)
    stream.sync()
    assert (shown == 3).all()
    assert (lab.now(buffer) == 9).all()


def test_a_callback_is_captured_and_runs_in_every_replay(lab: Lab, driver: StubDriver) -> None:
    stream = lab.stream()
    buffer = lab.device(SIZE, stream, value=1)
    memory = bytes_at(int(buffer.handle), SIZE)
    double = Told(lambda: np.multiply(memory, 2, out=memory))
    graph = graph_of(stream, lambda: driver.enqueue_host(int(stream.handle), double.callback))
    for _ in range(3):
        graph.launch(stream)
    stream.sync()
    assert (memory == 8).all()


def test_branches_of_a_graph_join_through_events_and_run_in_the_least_expected_order(lab: Lab, driver: StubDriver) -> None:
    main, side = lab.stream(), lab.stream()
    order: list[str] = []
    told = {name: Told(functools.partial(order.append, name)) for name in ("before", "main", "side", "after")}

    def queue(stream: Any, name: str) -> None:
        assert driver.enqueue_host(int(stream.handle), told[name].callback) == 0

    def work() -> None:
        queue(main, "before")
        side.wait(main)
        queue(main, "main")
        queue(side, "side")
        main.wait(side)
        queue(main, "after")

    graph = graph_of(main, work)
    graph.launch(main)
    main.sync()
    assert order == ["before", "side", "main", "after"]


def test_a_graph_outlives_its_handle_while_a_launch_is_queued(lab: Lab) -> None:
    stream = lab.stream()
    buffer = lab.device(SIZE, stream)
    graph = graph_of(stream, lambda: buffer.fill(3, stream=stream))
    graph.launch(stream)
    graph.close()
    stream.sync()
    assert (lab.now(buffer) == 3).all()


def test_an_updated_graph_does_the_new_work(lab: Lab) -> None:
    stream = lab.stream()
    buffer = lab.device(SIZE, stream)
    graph = graph_of(stream, lambda: buffer.fill(3, stream=stream))
    other, empty = (stream.create_graph_builder() for _ in range(2))
    other.begin_building("thread_local")
    buffer.fill(4, stream=stream)
    graph.update(other.end_building())
    graph.launch(stream)
    stream.sync()
    assert (lab.now(buffer) == 4).all()
    with pytest.raises(Exception, match=r"CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE|topology"):
        graph.update(empty.begin_building("thread_local").end_building())


def test_memory_that_a_graph_allocates_is_its_own(lab: Lab) -> None:
    stream = lab.stream()
    target, shown = lab.pinned(SIZE)

    def work() -> None:
        address = ctypes.c_uint64()
        assert lab.raw("cuMemAllocAsync", ctypes.byref(address), SIZE, int(stream.handle)) == 0
        assert lab.raw("cuMemsetD8Async", address.value, 3, SIZE, int(stream.handle)) == 0
        assert lab.raw("cuMemcpyAsync", int(target.handle), address.value, SIZE, int(stream.handle)) == 0
        assert lab.raw("cuMemFreeAsync", address.value, int(stream.handle)) == 0

    graph = graph_of(stream, work)
    for _ in range(2):
        shown[:] = 0
        graph.launch(stream)
        stream.sync()
        assert (shown == 3).all()


def test_a_graph_that_holds_addresses_of_freed_memory_is_a_fault(lab: Lab, driver: StubDriver) -> None:
    stream = lab.stream()
    buffer = lab.device(SIZE, stream)
    graph = graph_of(stream, lambda: buffer.fill(3, stream=stream))
    buffer.close(stream)
    graph.launch(stream)
    assert driver.faults() == 1
    assert "fault: a graph is launched that holds the address of freed memory" in driver.log()


# What a capture forbids.


FORBIDDEN: dict[str, tuple[int, Callable[[Lab, Any, Any], int]]] = {
    "waiting for the stream": (UNSUPPORTED, lambda lab, stream, event: lab.raw("cuStreamSynchronize", int(stream.handle))),
    "asking the stream": (UNSUPPORTED, lambda lab, stream, event: lab.raw("cuStreamQuery", int(stream.handle))),
    "waiting for the context": (UNSUPPORTED, lambda lab, stream, event: lab.raw("cuCtxSynchronize")),
    "waiting for an event": (UNSUPPORTED, lambda lab, stream, event: lab.raw("cuEventSynchronize", int(event.handle))),
    "asking an event": (UNSUPPORTED, lambda lab, stream, event: lab.raw("cuEventQuery", int(event.handle))),
    "allocating": (UNSUPPORTED, lambda lab, stream, event: lab.raw("cuMemAlloc_v2", ctypes.byref(ctypes.c_uint64()), SIZE)),
    "allocating pinned memory": (
        UNSUPPORTED,
        lambda lab, stream, event: lab.raw("cuMemAllocHost_v2", ctypes.byref(ctypes.c_void_p()), SIZE),
    ),
    "waiting for an outer event": (
        ISOLATION,
        lambda lab, stream, event: lab.raw("cuStreamWaitEvent", int(stream.handle), int(event.handle), 0),
    ),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_what_is_forbidden_in_a_capture_names_itself_and_spoils_it(lab: Lab, driver: StubDriver, what: str) -> None:
    code, work = FORBIDDEN[what]
    stream, other = lab.stream(), lab.stream()
    buffer = lab.device(SIZE, stream)
    event = other.record()
    with capturing(lab, stream):
        assert work(lab, stream, event) == code
        assert driver.refusals()[-1].split()[1].startswith(("cuStream", "cuCtx", "cuEvent", "cuMemAlloc"))
        assert status(lab, stream) == SPOILED
        assert lab.raw("cuMemsetD8Async", int(buffer.handle), 1, SIZE, int(stream.handle)) == INVALIDATED
        assert status(lab, stream) == SPOILED  # until it is ended
        assert end(lab, stream) == INVALIDATED
        assert status(lab, stream) == 0
    buffer.fill(3, stream=stream)
    stream.sync()
    assert (lab.now(buffer) == 3).all()


def test_freeing_pinned_and_plain_memory_is_forbidden(lab: Lab) -> None:
    stream = lab.stream()
    address, pinned = ctypes.c_uint64(), ctypes.c_void_p()
    lab.raw("cuMemAlloc_v2", ctypes.byref(address), SIZE)
    lab.raw("cuMemAllocHost_v2", ctypes.byref(pinned), SIZE)
    for function, memory in (("cuMemFree_v2", address), ("cuMemFreeHost", pinned)):
        with capturing(lab, stream):
            assert lab.raw(function, memory) == UNSUPPORTED
            assert end(lab, stream) == INVALIDATED
        assert lab.raw(function, memory) == 0


def test_memory_from_outside_is_not_freed_by_a_graph(lab: Lab) -> None:
    stream = lab.stream()
    buffer = lab.device(SIZE, stream)
    with capturing(lab, stream):
        assert lab.raw("cuMemFreeAsync", int(buffer.handle), int(stream.handle)) == 1
        assert end(lab, stream) == INVALIDATED


@pytest.mark.parametrize("handle", [0, 1])
@pytest.mark.parametrize("mode", [GLOBAL, THREAD_LOCAL, RELAXED])
def test_the_legacy_stream_spoils_captures_of_blocking_streams_alone(lab: Lab, handle: int, mode: int) -> None:
    blocking, free = lab.stream(blocking=True), lab.stream()
    buffer = lab.device(SIZE, free)
    with capturing(lab, free, mode):
        assert lab.raw("cuMemsetD8Async", int(buffer.handle), 1, SIZE, handle) == 0
        assert status(lab, free) == ACTIVE
    with capturing(lab, blocking, mode):
        assert lab.raw("cuStreamIsCapturing", handle, ctypes.byref(ctypes.c_int())) == IMPLICIT
        assert status(lab, blocking) == ACTIVE
        assert lab.raw("cuMemsetD8Async", int(buffer.handle), 1, SIZE, handle) == IMPLICIT
        assert status(lab, blocking) == SPOILED


def test_a_copy_that_waits_goes_through_the_legacy_stream(lab: Lab) -> None:
    blocking = lab.stream(blocking=True)
    buffer, host = lab.device(SIZE, blocking), np.zeros(SIZE, np.uint8)
    with capturing(lab, blocking, RELAXED):
        assert lab.raw("cuMemcpyHtoD_v2", int(buffer.handle), host.ctypes.data, SIZE) == IMPLICIT


def test_the_legacy_stream_cannot_be_captured(lab: Lab) -> None:
    assert lab.raw("cuStreamBeginCapture_v2", 1, RELAXED) == UNSUPPORTED


@pytest.mark.parametrize(("mode", "code"), [(GLOBAL, UNSUPPORTED), (THREAD_LOCAL, 0), (RELAXED, 0)])
def test_a_global_capture_forbids_other_threads_to_allocate(lab: Lab, mode: int, code: int) -> None:
    stream = lab.stream()
    with capturing(lab, stream, mode):
        assert in_thread(lab, lambda: lab.raw("cuMemAlloc_v2", ctypes.byref(ctypes.c_uint64()), SIZE)) == code
        assert status(lab, stream) == (SPOILED if code else ACTIVE)


def test_a_relaxed_thread_or_capture_may_allocate(lab: Lab) -> None:
    stream = lab.stream()
    with capturing(lab, stream, RELAXED):
        assert lab.raw("cuMemAlloc_v2", ctypes.byref(ctypes.c_uint64()), SIZE) == 0
    mode = ctypes.c_int(RELAXED)
    with capturing(lab, stream, GLOBAL):
        assert lab.raw("cuThreadExchangeStreamCaptureMode", ctypes.byref(mode)) == 0
        assert lab.raw("cuMemAlloc_v2", ctypes.byref(ctypes.c_uint64()), SIZE) == 0
        assert lab.raw("cuThreadExchangeStreamCaptureMode", ctypes.byref(mode)) == 0
        assert status(lab, stream) == ACTIVE


def test_an_event_of_a_capture_can_be_neither_asked_nor_waited_for(lab: Lab) -> None:
    for function in ("cuEventQuery", "cuEventSynchronize"):
        stream = lab.stream()
        event = lab.gpu.create_event()
        with capturing(lab, stream, RELAXED):
            stream.record(event)
            assert lab.raw(function, int(event.handle)) == CAPTURED_EVENT
            assert status(lab, stream) == SPOILED


# Beginning, joining and ending.


def test_a_branch_that_does_not_come_back_is_refused_at_the_end(lab: Lab) -> None:
    main, side = lab.stream(), lab.stream()
    buffer = lab.device(SIZE, main)
    with capturing(lab, main):
        side.wait(main)
        assert status(lab, side) == ACTIVE
        buffer.fill(3, stream=side)
        assert end(lab, main) == UNJOINED
        assert status(lab, side) == 0


def test_a_capture_ends_where_it_began(lab: Lab) -> None:
    main, side = lab.stream(), lab.stream()
    with capturing(lab, main):
        side.wait(main)
        assert end(lab, side) == UNMATCHED
        assert in_thread(lab, lambda: end(lab, main)) == WRONG_THREAD
        assert end(lab, main) == 0
        assert end(lab, main) == ILLEGAL_STATE
    with capturing(lab, main, RELAXED):
        assert in_thread(lab, lambda: end(lab, main)) == 0


def test_a_stream_is_captured_once_at_a_time_and_captures_do_not_merge(lab: Lab) -> None:
    first, second = lab.stream(), lab.stream()
    event = lab.gpu.create_event()
    with capturing(lab, first), capturing(lab, second):
        assert lab.raw("cuStreamBeginCapture_v2", int(first.handle), RELAXED) == ILLEGAL_STATE
        first.record(event)
        assert lab.raw("cuStreamWaitEvent", int(second.handle), int(event.handle), 0) == MERGE
        assert (status(lab, first), status(lab, second)) == (SPOILED, SPOILED)


def test_cuda_core_ends_a_spoiled_capture_when_its_builder_is_closed_and_raises_there_again(lab: Lab, driver: StubDriver) -> None:
    """Its `end_building` refuses without ending anything, and `close` in a `finally` hides the first error: whoever captures keeps that."""
    stream = lab.stream()
    builder = stream.create_graph_builder()
    builder.begin_building("thread_local")
    with pytest.raises(Exception, match="CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"):
        stream.sync()
    with pytest.raises(RuntimeError, match="must now be ended"):
        builder.end_building()
    assert "cuStreamEndCapture" not in driver.calls()
    assert status(lab, stream) == SPOILED
    with pytest.raises(Exception, match="CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"):
        builder.close()
    assert status(lab, stream) == 0
    stream.sync()


# Contexts behind a graph.


def test_a_graph_is_not_launched_in_a_context_that_is_gone(lab: Lab) -> None:
    from cuda.bindings import driver as bindings

    stream = lab.stream()
    _, other = bindings.cuCtxCreate(None, 0, 0)
    _, theirs = bindings.cuStreamCreate(1)
    bindings.cuStreamBeginCapture(theirs, bindings.CUstreamCaptureMode(RELAXED))
    _, graph = bindings.cuStreamEndCapture(theirs)
    code, instance = bindings.cuGraphInstantiate(graph, 0)
    assert int(code) == 0
    bindings.cuCtxDestroy(other)
    lab.gpu.set_current()
    assert int(bindings.cuGraphLaunch(instance, int(stream.handle))[0]) == 709
