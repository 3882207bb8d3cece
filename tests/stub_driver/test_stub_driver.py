"""The stub driver does what a driver does, asked through the installed cuda.core: order, memory, contexts, errors."""

from __future__ import annotations

import ctypes
import functools
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest
from stub import StubDriver, environment
from stub_lab import Lab, Told, bytes_at

DESTROYED, STALE, BROKEN, NOT_PERMITTED, NOT_SUPPORTED = 709, 400, 700, 800, 801
SIZE = 1000


# The device.


def test_cuda_core_finds_two_gpus(gpu: Any, cuda: Any) -> None:
    found = cuda.Device.get_all_devices()
    assert [device.name for device in found] == ["NVIDIA Stub H100"] * 2
    assert len({device.uuid for device in found}) == 2
    assert (gpu.compute_capability.major, gpu.compute_capability.minor) == (9, 0)
    assert gpu.properties.multiprocessor_count == 132


def test_memory_and_streams_are_of_the_gpu_that_is_current(gpu: Any, cuda: Any, driver: StubDriver) -> None:
    from rtformer_deploy.nvidia.driver import current_context, memory_owner, stream_context

    other = cuda.Device(1)
    contexts, owners, streams = [], [], []
    for device in (gpu, other):
        device.set_current()
        stream = device.create_stream()
        streams.append(stream)
        buffer = device.allocate(SIZE, stream=stream)
        contexts.append((current_context(), stream_context(int(stream.handle))))
        owners.append(memory_owner(int(buffer.handle)))
        stream.sync()
        buffer.close(stream)
    assert [owner[0] for owner in owners if owner is not None] == [0, 1]
    assert contexts[0][0] == contexts[0][1] != contexts[1][0] == contexts[1][1]
    with pytest.raises(Exception, match="CUDA_ERROR_INVALID_HANDLE"):
        streams[0].record(other.create_event())
    gpu.set_current()


def test_a_process_of_its_own_takes_the_stub_with_the_capability_and_version_that_it_is_told(driver: StubDriver) -> None:
    program = "import cuda.core as c; print(*c.Device(0).compute_capability); from rtformer_deploy.nvidia.driver import gpus; print(gpus())"
    told = {**environment(), "STUB_DRIVER_CAPABILITY": "12.1", "STUB_DRIVER_VERSION": "13010"}
    done = subprocess.run([sys.executable, "-c", program], env=told, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("12 1\n")
    assert "'NVIDIA Stub H100', compute_capability='12.1', memory_mib=81920, driver='13.1'" in done.stdout


def test_a_function_that_the_stub_lacks_refuses_under_its_own_name(gpu: Any, driver: StubDriver) -> None:
    from cuda.bindings import driver as bindings

    assert int(bindings.cuMemAllocManaged(100, 1)[0]) == NOT_SUPPORTED
    assert driver.refusals() == ["refused cuMemAllocManaged: 801: the stub has no such function"]
    assert driver.calls()["cuMemAllocManaged"] == 1


def test_calls_are_counted_by_name(lab: Lab, driver: StubDriver) -> None:
    stream = lab.stream()
    driver.forget()
    buffer = lab.gpu.allocate(SIZE, stream=stream)
    for value in range(3):
        buffer.fill(value, stream=stream)
    calls = driver.calls()
    assert calls["cuMemsetD8Async"] == 3
    assert calls["cuMemAllocFromPoolAsync"] == 1
    assert "cuStreamSynchronize" not in calls
    driver.forget()
    assert driver.calls() == {}


# Streams: what is queued runs when somebody waits.


def test_a_missing_wait_shows_as_stale_data(lab: Lab, driver: StubDriver) -> None:
    stream = lab.stream()
    (source, _), (target, shown) = lab.pinned(SIZE, 7), lab.pinned(SIZE, 1)
    buffer = lab.device(SIZE, stream)
    buffer.copy_from(source, stream=stream)
    buffer.copy_to(target, stream=stream)
    assert (shown == 1).all()
    assert driver.pending() == 2
    stream.sync()
    assert (shown == 7).all()
    assert driver.pending() == 0


def test_a_stream_keeps_its_order(lab: Lab) -> None:
    stream = lab.stream()
    order: list[int] = []
    told = [Told(functools.partial(order.append, number)) for number in range(5)]
    for each in told:
        lab.driver.enqueue_host(int(stream.handle), each.callback)
    stream.sync()
    assert order == [0, 1, 2, 3, 4]


def test_pinned_memory_is_read_when_the_stream_comes_to_it_and_pageable_memory_at_once(lab: Lab) -> None:
    stream = lab.stream()
    pinned, written = lab.pinned(SIZE, 1)
    pageable = np.full(SIZE, 1, np.uint8)
    late, early = lab.device(SIZE, stream), lab.device(SIZE, stream)
    late.copy_from(pinned, stream=stream)
    assert lab.raw("cuMemcpyAsync", int(early.handle), pageable.ctypes.data, SIZE, int(stream.handle)) == 0
    written[:] = pageable[:] = 2
    stream.sync()
    assert (lab.now(late) == 2).all()
    assert (lab.now(early) == 1).all()


def test_a_copy_to_pageable_memory_is_done_when_the_call_returns(lab: Lab) -> None:
    stream = lab.stream()
    buffer = lab.device(SIZE, stream, value=5)
    pageable = np.zeros(SIZE, np.uint8)
    assert lab.raw("cuMemcpyAsync", pageable.ctypes.data, int(buffer.handle), SIZE, int(stream.handle)) == 0
    assert (pageable == 5).all()


def test_streams_do_not_wait_for_each_other(lab: Lab) -> None:
    first, second = lab.stream(), lab.stream()
    buffer = lab.device(SIZE, first, value=3)
    second.sync()
    assert not (lab.now(buffer) == 3).any()
    first.sync()
    assert (lab.now(buffer) == 3).all()


def test_an_event_lets_one_stream_wait_for_another(lab: Lab) -> None:
    first, second = lab.stream(), lab.stream()
    buffer = lab.device(SIZE, first, value=3)
    target, shown = lab.pinned(SIZE)
    second.wait(first.record())
    buffer.fill(4, stream=first)  # after the event, so the second stream does not wait for it
    buffer.copy_to(target, stream=second)
    second.sync()
    assert (shown == 3).all()


def test_an_event_stands_for_its_last_record(lab: Lab) -> None:
    first, second = lab.stream(), lab.stream()
    event = first.record()
    buffer = lab.device(SIZE, first, value=3)
    first.record(event)
    second.wait(event)
    second.sync()
    assert (lab.now(buffer) == 3).all()


def test_asking_makes_no_progress_unless_the_mode_says_so(lab: Lab, driver: StubDriver) -> None:
    stream = lab.stream()
    buffer = lab.device(SIZE, stream, value=3)
    event = stream.record()
    assert not any(event.is_done for _ in range(5))
    assert not (lab.now(buffer) == 3).any()
    driver.reset()
    buffer.fill(4, stream=stream)
    buffer.fill(5, stream=stream)
    stream.record(event)
    driver.mode("stepping")
    buffer.fill(6, stream=stream)
    buffer.fill(7, stream=stream)
    stream.record(event)
    assert [event.is_done, event.is_done, event.is_done] == [False, False, True]
    assert (lab.now(buffer) == 7).all()


def test_a_worker_runs_work_without_being_waited_for(lab: Lab, driver: StubDriver) -> None:
    driver.mode("worker")
    stream = lab.stream()
    buffer = lab.device(SIZE, stream, value=3)
    event = stream.record()
    end = time.monotonic() + 10
    while not event.is_done and time.monotonic() < end:
        time.sleep(0.001)
    assert event.is_done
    assert (lab.now(buffer) == 3).all()


def test_events_tell_the_time_between_them_and_only_when_both_have_come(lab: Lab, cuda: Any) -> None:
    stream = lab.stream()
    timed = cuda.EventOptions(timing_enabled=True)
    nap = Told(lambda: time.sleep(0.02))
    begin = stream.record(options=timed)
    lab.driver.enqueue_host(int(stream.handle), nap.callback)
    end = stream.record(options=timed)
    with pytest.raises(RuntimeError, match="complete"):
        _ = end - begin
    stream.sync()
    assert 15 < end - begin < 5000


# The default streams.


def test_the_legacy_stream_waits_for_blocking_streams_alone(lab: Lab) -> None:
    blocking, free = lab.stream(blocking=True), lab.stream()
    seen, unseen = lab.device(SIZE, blocking, value=3), lab.device(SIZE, free, value=3)
    assert lab.raw("cuStreamSynchronize", 1) == 0
    assert (lab.now(seen) == 3).all()
    assert not (lab.now(unseen) == 3).any()


@pytest.mark.parametrize("handle", [0, 1])
def test_blocking_streams_wait_for_the_legacy_stream(lab: Lab, handle: int) -> None:
    blocking, free = lab.stream(blocking=True), lab.stream()
    buffer = lab.device(SIZE, free)
    free.sync()
    assert lab.raw("cuMemsetD8Async", int(buffer.handle), 3, SIZE, handle) == 0
    free.sync()
    assert not (lab.now(buffer) == 3).any()
    buffer.fill(4, stream=blocking)
    blocking.sync()
    assert lab.raw("cuStreamSynchronize", handle) == 0
    assert (lab.now(buffer) == 4).all()


def test_each_thread_has_its_own_default_stream_which_waits_for_the_legacy_one(lab: Lab) -> None:
    free = lab.stream()
    legacy, mine = lab.device(SIZE, free), lab.device(SIZE, free)
    free.sync()
    assert lab.raw("cuMemsetD8Async", int(mine.handle), 3, SIZE, 2) == 0

    def other() -> None:
        lab.gpu.set_current()
        assert lab.raw("cuStreamSynchronize", 2) == 0

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert not (lab.now(mine) == 3).any()
    assert lab.raw("cuMemsetD8Async", int(legacy.handle), 3, SIZE, 1) == 0
    assert (lab.raw("cuMemsetD8Async", int(mine.handle), 5, SIZE, 2), lab.raw("cuStreamSynchronize", 2)) == (0, 0)
    assert (lab.now(legacy) == 3).all()
    assert (lab.now(mine) == 5).all()


# Memory.


def test_freed_memory_is_handed_out_again_at_once_and_poisoned(lab: Lab) -> None:
    stream = lab.stream()
    buffer = lab.device(SIZE, stream, value=3)
    address = int(buffer.handle)
    buffer.close(stream)
    again = lab.gpu.allocate(SIZE, stream=stream)
    assert int(again.handle) == address
    stream.sync()
    assert (lab.now(again) == 0xDB).all()


def test_a_reader_that_the_free_does_not_wait_for_reads_poison(lab: Lab) -> None:
    stream, reader = lab.stream(), lab.stream()
    buffer = lab.device(SIZE, stream, value=3)
    target, shown = lab.pinned(SIZE)
    reader.wait(stream)
    buffer.copy_to(target, stream=reader)
    buffer.close(stream)
    stream.sync()
    reader.sync()
    assert (shown == 0xDB).all()


def test_memory_freed_in_one_stream_is_safe_in_another(lab: Lab) -> None:
    first, second = lab.stream(), lab.stream()
    buffer = lab.device(SIZE, first, value=3)
    address = int(buffer.handle)
    buffer.close(first)
    again = lab.gpu.allocate(SIZE, stream=second)
    again.fill(4, stream=second)
    assert int(again.handle) == address
    second.sync()
    first.sync()
    assert (lab.now(again) == 4).all()


def test_writing_into_freed_memory_is_a_fault(lab: Lab, driver: StubDriver) -> None:
    stream = lab.stream()
    buffer = lab.device(SIZE, stream)
    address = int(buffer.handle)
    buffer.close(stream)
    stream.sync()
    bytes_at(address, SIZE)[5] = 1
    again = lab.gpu.allocate(SIZE, stream=stream)
    assert int(again.handle) == address
    stream.sync()
    assert driver.log()[-1] == "fault: memory was written after it was freed"
    assert driver.faults() == 1


def test_writing_behind_the_end_of_memory_is_a_fault(lab: Lab, driver: StubDriver) -> None:
    stream = lab.stream()
    buffer = lab.device(SIZE, stream)
    stream.sync()
    bytes_at(int(buffer.handle), SIZE + 1)[SIZE] = 1
    buffer.close(stream)
    stream.sync()
    assert driver.faults() == 1


def test_memory_that_is_handed_out_smaller_before_its_free_has_run_is_no_fault(lab: Lab, driver: StubDriver) -> None:
    stream, other = lab.stream(), lab.stream()
    large = lab.gpu.allocate(SIZE, stream=stream)
    large.fill(1, stream=stream)
    address = int(large.handle)
    large.close(stream)
    small = lab.gpu.allocate(SIZE - 100, stream=other)
    assert int(small.handle) == address
    other.sync()
    small.close(other)
    assert driver.faults() == 0


def test_freed_memory_and_too_much_of_it_are_refused(lab: Lab, driver: StubDriver) -> None:
    stream = lab.stream()
    target, _ = lab.pinned(2 * SIZE)
    buffer = lab.device(SIZE, stream)
    address = int(buffer.handle)
    arguments = (int(target.handle), address, int(stream.handle))
    assert lab.raw("cuMemcpyAsync", arguments[0], address, SIZE + 1, arguments[2]) == 1
    buffer.close(stream)
    assert lab.raw("cuMemcpyAsync", arguments[0], address, SIZE, arguments[2]) == 1
    assert lab.raw("cuMemFreeAsync", address, arguments[2]) == 1
    assert [line.rpartition(": ")[2] for line in driver.refusals()] == [
        "it leaves its memory",
        "the memory was freed",
        "the memory was freed already",
    ]


def test_plain_memory_waits_for_the_gpu_when_it_is_freed(lab: Lab, driver: StubDriver) -> None:
    stream = lab.stream()
    buffer = lab.device(SIZE, stream, value=3)
    address = ctypes.c_uint64()
    assert lab.raw("cuMemAlloc_v2", ctypes.byref(address), SIZE) == 0
    assert lab.raw("cuMemFree_v2", address.value) == 0
    assert (lab.now(buffer) == 3).all()


def test_an_address_is_known_for_what_it_is(lab: Lab) -> None:
    from rtformer_deploy.nvidia import driver as gpu

    stream = lab.stream()
    pooled, (pinned, _) = lab.device(SIZE, stream), lab.pinned(SIZE)
    plain = ctypes.c_uint64()
    lab.raw("cuMemAlloc_v2", ctypes.byref(plain), SIZE)
    assert gpu.memory_owner(int(pooled.handle) + 5) == (0, None)
    assert gpu.memory_owner(plain.value) == (0, gpu.current_context())
    assert gpu.memory_owner(int(pinned.handle)) is None
    assert gpu.memory_owner(np.zeros(8, np.uint8).ctypes.data) is None
    lab.raw("cuMemFree_v2", plain.value)
    assert gpu.memory_owner(plain.value) is None
    assert (pooled.is_device_accessible, pooled.is_host_accessible, pinned.is_host_accessible) == (True, False, True)


def test_memory_ends_at_the_limit_and_comes_back_with_what_is_freed(lab: Lab, driver: StubDriver, cuda: Any) -> None:
    stream = lab.stream()
    buffer = lab.device(SIZE, stream)
    driver.memory_limit(driver.used() + SIZE // 2)
    with pytest.raises(Exception, match="CUDA_ERROR_OUT_OF_MEMORY"):
        lab.device(SIZE, stream)
    with pytest.raises(Exception, match="CUDA_ERROR_OUT_OF_MEMORY"):
        lab.pinned(SIZE)
    buffer.close(stream)
    lab.device(SIZE, stream)


# Contexts.


def test_a_thread_without_a_context_is_refused(lab: Lab, driver: StubDriver) -> None:
    codes: list[int] = []
    stream = lab.stream()
    thread = threading.Thread(target=lambda: codes.append(lab.raw("cuStreamSynchronize", int(stream.handle))))
    thread.start()
    thread.join()
    assert codes == [201]


def test_an_event_and_a_stream_of_another_context_are_refused(lab: Lab) -> None:
    from cuda.bindings import driver as bindings

    mine = lab.stream()
    event = lab.gpu.create_event()
    _, other = bindings.cuCtxCreate(None, 0, 0)
    try:
        _, stream = bindings.cuStreamCreate(1)
        assert int(bindings.cuStreamGetCtx(stream)[1]) == int(other) != int(bindings.cuStreamGetCtx(int(mine.handle))[1])
        assert lab.raw("cuEventRecord", int(event.handle), int(stream)) == STALE
    finally:
        bindings.cuCtxDestroy(other)
    lab.gpu.set_current()
    assert lab.raw("cuStreamSynchronize", int(stream)) == DESTROYED
    assert lab.raw("cuStreamSynchronize", int(mine.handle)) == 0


def test_a_destroyed_stream_is_refused(lab: Lab) -> None:
    stream = lab.stream()
    handle = int(stream.handle)
    stream.close()
    assert lab.raw("cuStreamSynchronize", handle) == STALE


# Errors.


def test_after_an_error_that_breaks_the_context_every_call_gives_it(lab: Lab, driver: StubDriver) -> None:
    stream = lab.stream()
    event = stream.record()
    buffer = lab.device(SIZE, stream)
    driver.break_context(BROKEN)
    for call in (stream.sync, event.sync, lambda: event.is_done, lab.stream, lambda: buffer.fill(0, stream=stream)):
        with pytest.raises(Exception, match="CUDA_ERROR_ILLEGAL_ADDRESS"):
            call()
    assert lab.raw("cuEventCreate", ctypes.byref(ctypes.c_void_p()), 0) == BROKEN
    driver.reset()
    stream.sync()


def test_a_context_breaks_in_the_middle_of_work(lab: Lab, driver: StubDriver) -> None:
    stream = lab.stream()
    buffers = [lab.device(SIZE, stream) for _ in range(3)]
    stream.sync()
    driver.break_context(719, after=2)
    for buffer in buffers:
        buffer.fill(3, stream=stream)
    with pytest.raises(Exception, match="CUDA_ERROR_LAUNCH_FAILED"):
        stream.sync()
    assert [(lab.now(buffer) == 3).all() for buffer in buffers] == [True, True, False]


def test_a_gpu_that_does_not_answer_lets_wait_until_it_is_released(lab: Lab, driver: StubDriver) -> None:
    stream = lab.stream()
    buffer = lab.device(SIZE, stream, value=3)
    event = stream.record()
    driver.mode("stepping")
    buffer.fill(4, stream=stream)
    stream.record(event)
    driver.hang()
    assert not any(event.is_done for _ in range(5))

    def wait() -> None:
        lab.gpu.set_current()
        event.sync()

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join(0.1)
    assert thread.is_alive()
    driver.release()
    thread.join(10)
    assert not thread.is_alive()
    assert (lab.now(buffer) == 4).all()


# Callbacks.


def test_a_callback_works_over_the_gpus_memory_in_its_place(lab: Lab) -> None:
    stream = lab.stream()
    buffer = lab.device(SIZE, stream, value=3)
    target, shown = lab.pinned(SIZE)
    memory = bytes_at(int(buffer.handle), SIZE)
    double = Told(lambda: np.multiply(memory, 2, out=memory))
    assert lab.driver.enqueue_host(int(stream.handle), double.callback) == 0
    buffer.copy_to(target, stream=stream)
    stream.sync()
    assert (shown == 6).all()


def test_the_drivers_own_callback_may_not_call_the_driver_and_an_engines_may(lab: Lab) -> None:
    stream, other = lab.stream(), lab.stream()
    codes: list[int] = []
    told = Told(lambda: codes.append(lab.raw("cuStreamSynchronize", int(other.handle))))
    assert lab.raw("cuLaunchHostFunc", int(stream.handle), told.callback, None) == 0
    lab.driver.enqueue_host(int(stream.handle), told.callback)
    stream.sync()
    assert codes == [NOT_PERMITTED, 0]


def test_a_callback_that_waits_for_its_own_stream_is_refused(lab: Lab) -> None:
    stream = lab.stream()
    codes: list[int] = []
    told = Told(lambda: codes.append(lab.raw("cuStreamSynchronize", int(stream.handle))))
    lab.driver.enqueue_host(int(stream.handle), told.callback)
    stream.sync()
    assert codes == [NOT_PERMITTED]


@pytest.mark.parametrize("mode", ["lazy", "worker"])
def test_threads_with_callbacks_and_waits_do_not_lock_each_other_out(lab: Lab, driver: StubDriver, mode: Any) -> None:
    driver.mode(mode)
    right: list[bool] = []

    def work(value: int) -> None:
        lab.gpu.set_current()
        stream = lab.stream()
        buffer = lab.device(SIZE, stream)
        target, shown = lab.pinned(SIZE)
        memory = bytes_at(int(buffer.handle), SIZE)
        add = Told(lambda: np.add(memory, 1, out=memory))
        for _ in range(20):
            buffer.fill(value, stream=stream)
            driver.enqueue_host(int(stream.handle), add.callback)
            buffer.copy_to(target, stream=stream)
            lab.pinned(64)[0].close(stream)  # waits for the whole GPU
            stream.sync()
            right.append(bool((shown == value + 1).all()))

    threads = [threading.Thread(target=work, args=(value,), daemon=True) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert right == [True] * 80


# Measuring.


def test_without_work_everything_returns_at_once_and_nothing_is_done(lab: Lab, driver: StubDriver) -> None:
    stream = lab.stream()
    buffer = lab.device(SIZE, stream, value=3)
    event = stream.record()
    driver.mode("no work")
    called: list[int] = []
    told = Told(lambda: called.append(1))
    buffer.fill(4, stream=stream)
    driver.enqueue_host(int(stream.handle), told.callback)
    stream.record(event)
    assert event.is_done
    stream.sync()
    assert called == []
    assert driver.pending() == 0
    assert (lab.now(buffer) == 3).all()
