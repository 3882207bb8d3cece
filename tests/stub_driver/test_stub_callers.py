"""Frames and label maps in device memory over real cuda.core: whom the lane waits for, and when memory is handed out again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers import frames
from lane_lab import LaneLab, reference
from stub_lab import bytes_at

SIZE = (50, 70)
LEGACY = 1


def pinned(lab: LaneLab, size: int) -> tuple[Any, Any]:
    buffer = lab.cuda._cuda.LegacyPinnedMemoryResource().allocate(size)
    return buffer, bytes_at(int(buffer.handle), size)


@pytest.mark.parametrize(
    ("interface", "waits"),
    [
        ({"version": 2}, True),
        ({"version": 2, "stream": None}, True),
        ({"version": 3}, True),
        ({"version": 3, "stream": LEGACY}, True),
        ({"version": 3, "stream": None}, False),
    ],
)
def test_what_an_array_says_of_its_stream(lane_lab: LaneLab, interface: dict[str, Any], waits: bool) -> None:
    """torch's arrays have version 2 and no stream: they are complete when the legacy stream is. `None` in version 3 says: no wait."""
    runner = lane_lab.open()
    stale, fresh = (frames(SIZE, seed=seed)[0] for seed in range(2))
    array = lane_lab.on_gpu(stale, **interface)
    buffer, memory = pinned(lane_lab, fresh.nbytes)
    memory[:] = fresh.reshape(-1)
    array.buffer.copy_from(buffer, stream=lane_lab.cuda.LEGACY_DEFAULT_STREAM)
    labels = runner.result(runner.submit([array]))[0]
    np.testing.assert_array_equal(labels, reference(fresh if waits else stale))
    lane_lab.aside.sync()
    lane_lab.cuda.LEGACY_DEFAULT_STREAM.sync()


@pytest.mark.parametrize("reader", ["legacy", "given"])
def test_label_maps_stay_while_their_reader_may_read_them(lane_lab: LaneLab, reader: str) -> None:
    """The reader's copy is queued, the labels are dropped, and the next frame's labels must not lie in their memory too early."""
    runner = lane_lab.open()
    given = [frames(SIZE, seed=seed)[0] for seed in range(2)]
    stream = lane_lab.cuda.LEGACY_DEFAULT_STREAM if reader == "legacy" else lane_lab.gpu.create_stream()
    shown = None if reader == "legacy" else SimpleNamespace(handle=int(stream.handle))  # as PyCUDA's streams are
    arrays = [lane_lab.on_gpu(frame, version=3, stream=None) for frame in given]
    labels: Any = runner.result(runner.submit([arrays[0]], stream=shown, on_device=True))[0]
    buffer, memory = pinned(lane_lab, SIZE[0] * SIZE[1])
    whole = lane_lab.cuda._cuda.Buffer.from_handle(labels.__cuda_array_interface__["data"][0], buffer.size, owner=labels)
    whole.copy_to(buffer, stream=stream)
    del labels, whole
    later = runner.result(runner.submit([arrays[1]], on_device=True))[0]  # which waits for no stream
    stream.sync()
    np.testing.assert_array_equal(memory.reshape(SIZE), reference(given[0]))
    del later


def test_label_maps_keep_the_stream_that_their_memory_waits_for(lane_lab: LaneLab) -> None:
    runner = lane_lab.open()
    stream = lane_lab.gpu.create_stream()
    array = lane_lab.on_gpu(frames(SIZE)[0], version=3, stream=None)
    labels = runner.result(runner.submit([array], stream=stream, on_device=True))[0]
    runner.close()
    lane_lab.driver.forget()
    del stream
    del labels
    assert lane_lab.driver.calls()["cuMemFreeAsync"] == 1
    assert lane_lab.driver.refusals() == []


def test_label_maps_of_a_bare_handle_outlive_its_stream(lane_lab: LaneLab) -> None:
    runner = lane_lab.open()
    stream = lane_lab.gpu.create_stream()
    array = lane_lab.on_gpu(frames(SIZE)[0], version=3, stream=None)
    labels = runner.result(runner.submit([array], stream=int(stream.handle), on_device=True))[0]
    runner.close()
    stream.close()
    lane_lab.driver.forget()
    del labels
    assert lane_lab.driver.calls()["cuMemFreeAsync"] == 1
    assert lane_lab.driver.refusals() == []
