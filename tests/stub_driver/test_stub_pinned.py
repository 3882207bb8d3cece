"""Pinned memory that callers hold: frames that are not copied, and label maps that nobody overwrites."""

from __future__ import annotations

import gc
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from helpers import frames
from lane_lab import LaneLab, check, reference
from numpy.typing import NDArray

from rtformer_deploy.errors import EngineError
from rtformer_deploy.runtime.frame_runner import FrameRunner
from rtformer_deploy.types import Frame, LabelMap

SIZE, OTHER = (50, 70), (64, 96)


def lane_of(runner: FrameRunner) -> Any:
    return runner.sessions[0]


def is_pinned(array: NDArray[np.uint8]) -> bool:
    """Whether an array lies in memory that the lanes lent, rather than in memory of its own."""
    memory: Any = array
    while isinstance(memory, np.ndarray) and memory.base is not None:
        memory = memory.base
    return hasattr(memory, "owner")


def filled(runner: FrameRunner, frame: Frame) -> Frame:
    """A frame in memory of the runner's."""
    pinned = runner.frame(frame.shape[:2])
    pinned[...] = frame
    return pinned


def labels_of(runner: FrameRunner, *given: Frame) -> list[LabelMap]:
    return runner.result(runner.submit(given))


# Frames.


@pytest.mark.parametrize("graphs", [True, False])
def test_a_frame_of_the_runners_is_read_where_it_is(lane_lab: LaneLab, graphs: bool) -> None:
    """What is written to it after `submit`, which no caller should do, is what the GPU sees: so it was not copied."""
    runner = lane_lab.open(2, graphs=graphs)
    for seed in range(8):
        first, second = frames(SIZE, SIZE, seed=seed)
        given = filled(runner, first)
        ticket = runner.submit([given])
        given[...] = second
        np.testing.assert_array_equal(runner.result(ticket)[0], reference(second))
    assert ("cuGraphLaunch" in lane_lab.driver.calls()) == graphs
    assert runner.notes == ()


def test_rows_of_a_frame_are_read_where_they_are_too_and_other_parts_are_copied(lane_lab: LaneLab) -> None:
    runner = lane_lab.open()
    for seed in range(4):
        (frame,) = frames(OTHER, seed=seed)
        given = filled(runner, frame)
        for part, read_in_place in ((np.s_[7:57], True), (np.s_[:, 5:70], False), (np.s_[::-1], False), (np.s_[:, :, ::-1], False)):
            ticket = runner.submit([given[part]])
            given[...] = 0
            expected = np.zeros_like(frame[part]) if read_in_place else frame[part]
            np.testing.assert_array_equal(runner.result(ticket)[0], reference(np.ascontiguousarray(expected)))
            given[...] = frame


def test_a_batch_may_hold_frames_of_both_kinds(lane_lab: LaneLab) -> None:
    runner = lane_lab.open(2)
    for seed in range(5):
        given = frames(SIZE, OTHER, SIZE, seed=seed)
        for kinds in ((True, True, True), (False, True, False), (True, False, False), (False, False, False)):
            check(runner, [filled(runner, frame) if pinned else frame for frame, pinned in zip(given, kinds, strict=True)])
    assert runner.notes == ()


def test_a_frame_in_flight_is_not_handed_out_again(lane_lab: LaneLab) -> None:
    runner = lane_lab.open()
    for seed in range(6):
        first, second = frames(SIZE, SIZE, seed=seed)
        given = [filled(runner, first)]
        ticket = runner.submit(given)
        given.clear()  # nobody but the lane holds it
        other = filled(runner, second)
        np.testing.assert_array_equal(runner.result(ticket)[0], reference(first))
        check(runner, [other])


def test_a_frames_memory_is_used_again_once_every_view_of_it_is_gone(lane_lab: LaneLab) -> None:
    runner = lane_lab.open()
    given = runner.frame(SIZE)
    address, row = given.ctypes.data, given[3]
    del given
    assert runner.frame(SIZE).ctypes.data != address
    del row
    assert runner.frame(SIZE).ctypes.data == address


def test_more_frames_than_lanes_can_have_in_flight_twice_are_ordinary_arrays(lane_lab: LaneLab) -> None:
    runner = lane_lab.open(2, batch=3)
    held = [runner.frame(SIZE) for _ in range(15)]
    assert [is_pinned(frame) for frame in held] == [True] * 12 + [False] * 3
    for index, frame in enumerate(frames(*[SIZE] * 15)):
        held[index][...] = frame
    for start in range(0, 15, 3):
        check(runner, held[start : start + 3])
    held.clear()
    assert is_pinned(runner.frame(SIZE))


def test_another_runners_frame_is_copied(lane_lab: LaneLab) -> None:
    (frame,) = frames(SIZE)
    theirs = filled(lane_lab.open(), frame)
    runner = lane_lab.open()
    ticket = runner.submit([theirs])
    theirs[...] = 0
    np.testing.assert_array_equal(runner.result(ticket)[0], reference(frame))


# Label maps.


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("lanes", [1, 3])
def test_label_maps_that_are_kept_stay_as_they_are(lane_lab: LaneLab, lanes: int, graphs: bool) -> None:
    """Those of twice as many submissions as there are lanes are in pinned memory, the others are copies, and none of them changes."""
    runner = lane_lab.open(lanes, graphs=graphs)
    given = [frames(SIZE, OTHER, seed=seed)[: 1 + seed % 2] for seed in range(10 * lanes)]
    kept = [labels_of(runner, *some) for some in given]
    for some, maps in zip(given, kept, strict=True):
        for frame, labels in zip(some, maps, strict=True):
            np.testing.assert_array_equal(labels, reference(frame))
            labels[...] = 77  # it is the caller's own
    assert sum(is_pinned(maps[0]) for maps in kept) == lane_of(runner).share.labels.lent == 2 * lanes
    for seed in range(4 * lanes):
        check(runner, frames(SIZE, seed=100 + seed))
    assert all((labels == 77).all() for maps in kept for labels in maps)
    assert runner.notes == ()


def test_one_view_of_one_label_map_keeps_the_memory_of_its_submission(lane_lab: LaneLab) -> None:
    runner = lane_lab.open()
    given = frames(SIZE, OTHER)
    view = labels_of(runner, *given)[1][10:20, 5::7]
    expected = reference(given[1])[10:20, 5::7]
    for seed in range(6):
        check(runner, frames(SIZE, OTHER, seed=seed))
        np.testing.assert_array_equal(view, expected)
    assert lane_of(runner).share.labels.lent == 1
    del view
    assert lane_of(runner).share.labels.lent == 0


def test_memory_of_label_maps_turns_and_does_not_grow(lane_lab: LaneLab) -> None:
    """A caller that always keeps the last three."""
    runner = lane_lab.open(2)
    kept: list[tuple[Frame, LabelMap]] = []
    used = 0
    for seed in range(40):
        (frame,) = frames(SIZE, seed=seed)
        kept.append((frame, labels_of(runner, frame)[0]))
        del kept[:-3]
        for known, labels in kept:
            np.testing.assert_array_equal(labels, reference(known))
            assert is_pinned(labels)
        used = used or (lane_lab.driver.used() if seed == 20 else 0)
    assert lane_lab.driver.used() == used
    assert runner.notes == ()


def test_results_that_wait_with_their_tickets_are_kept_too(lane_lab: LaneLab) -> None:
    runner = lane_lab.open(2)
    given = [frames(SIZE, seed=seed) for seed in range(12)]
    tickets = [runner.submit(some) for some in given]
    for ticket, some in reversed(list(zip(tickets, given, strict=True))):
        np.testing.assert_array_equal(runner.result(ticket)[0], reference(some[0]))


def test_threads_that_keep_frames_and_label_maps_at_random(lane_lab: LaneLab) -> None:
    runner = lane_lab.open(3)
    known = [(frame, reference(frame)) for seed in range(4) for frame in frames(SIZE, OTHER, seed=seed)]

    def work(seed: int) -> None:
        rng = random.Random(seed)
        kept: list[tuple[LabelMap, LabelMap]] = []
        for _ in range(40):
            frame, expected = rng.choice(known)
            given = filled(runner, frame) if rng.random() < 0.5 else frame
            kept.append((labels_of(runner, given)[0], expected))
            if rng.random() < 0.5:
                kept.pop(rng.randrange(len(kept)))
        for labels, expected in kept:
            np.testing.assert_array_equal(labels, expected)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work, seed) for seed in range(4)]:
            done.result()
    assert lane_of(runner).share.labels.lent == lane_of(runner).share.frames.lent == 0


# Graphs.


def test_a_graph_copies_to_the_memory_of_each_request(lane_lab: LaneLab) -> None:
    """One launch a frame whatever memory it is in; where a copy goes is changed only if it is other memory than before."""
    runner = lane_lab.open()
    given = frames(SIZE, SIZE)
    for frame in given * 2:
        check(runner, [filled(runner, frame)])
    lane_lab.driver.forget()
    for frame in given:
        check(runner, [filled(runner, frame)])
    assert "cuGraphExecMemcpyNodeSetParams" not in lane_lab.driver.calls(), "the same frame's and label map's memory every time"
    kept = [(labels_of(runner, filled(runner, frame))[0], frame) for frame in given]
    calls = lane_lab.driver.calls()
    assert calls["cuGraphExecMemcpyNodeSetParams"] == 1, "the second label map went elsewhere"
    assert calls["cuGraphLaunch"] == calls["cuEventRecord"] == 4
    for labels, frame in kept:
        np.testing.assert_array_equal(labels, reference(frame))


def test_copies_that_cannot_be_changed_are_found_out(lane_lab: LaneLab, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(copy: Any, graph: Any, host: int) -> None:
        raise EngineError("CUDA does not let a graph copy elsewhere: CUDA_ERROR_INVALID_VALUE.")

    monkeypatch.setattr("rtformer_deploy.nvidia.graph_copies.GraphCopy.aim", refuse)
    runner = lane_lab.open()
    for seed in range(8):
        check(runner, frames(SIZE, seed=seed))
    assert runner.notes == (
        "CUDA graphs: 1 x 50x70 runs without: its copies cannot use other memory: "
        "CUDA does not let a graph copy elsewhere: CUDA_ERROR_INVALID_VALUE.",
    )
    assert "cuGraphLaunch" not in lane_lab.driver.calls()


def test_copies_that_stay_where_they_were_are_found_out(lane_lab: LaneLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtformer_deploy.nvidia.graph_copies.GraphCopy.aim", lambda copy, graph, host: None)
    runner = lane_lab.open()
    for seed in range(8):
        check(runner, frames(SIZE, seed=seed))
    assert runner.notes == ("CUDA graphs: 1 x 50x70 runs without: the replay did not give what a run without the graph gives",)


# The end.


def test_what_callers_hold_outlives_the_runner_and_is_freed_with_the_last_reference(lane_lab: LaneLab) -> None:
    gc.collect()
    before = lane_lab.driver.used()
    runner = lane_lab.open(2)
    given = frames(SIZE, OTHER)
    frame = filled(runner, given[0])
    maps = labels_of(runner, *given)
    runner.close()
    for labels, original in zip(maps, given, strict=True):
        np.testing.assert_array_equal(labels, reference(original))
    np.testing.assert_array_equal(frame, given[0])
    frame[...] = 3
    assert lane_lab.driver.used() > before
    del frame, maps, labels
    assert lane_lab.driver.used() == before


def test_memory_of_a_gpu_that_failed_is_never_freed(lane_lab: LaneLab) -> None:
    runner = lane_lab.open()
    (labels,) = labels_of(runner, *frames(SIZE))
    expected = labels.copy()
    frame = runner.frame(SIZE)
    lane_lab.driver.break_context()
    with pytest.raises(EngineError, match="has failed"):
        runner.run([frame])
    used = lane_lab.driver.used()
    with pytest.raises(EngineError, match="has failed"):
        runner.frame(OTHER)
    runner.close()
    np.testing.assert_array_equal(labels, expected)
    del labels, frame
    assert lane_lab.driver.used() == used
