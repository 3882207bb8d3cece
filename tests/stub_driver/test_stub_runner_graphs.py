"""CUDA graphs of runners over real cuda.core: captured once a shape, proved before they are trusted, done without if they cannot be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import frames
from tensorrt_lab import SIZES, TensorRTLab, assert_labels, check, read
from tensorrt_plans import make_engine

from rtformer_deploy.backends import open_engine


def graph_notes(runner: Any) -> list[str]:
    return [note for note in runner.notes if note.startswith("CUDA graphs:")]


def test_a_shape_is_captured_once_and_replayed_from_then_on(machine: TensorRTLab) -> None:
    with open_engine(make_engine()) as runner:
        for seed in range(6):
            for size in SIZES:
                check(runner, frames(size, seed=seed))
        assert machine.captured() == len(SIZES)
        executed, replayed = machine.count("TensorRT: execute"), machine.replayed()
        check(runner, frames(*SIZES, seed=9))
        assert machine.count("TensorRT: execute") == executed
        assert machine.replayed() == replayed + len(SIZES)
        assert graph_notes(runner) == []


def test_without_graphs_nothing_is_captured(machine: TensorRTLab) -> None:
    with open_engine(make_engine(), graphs=False) as runner:
        check(runner, frames(*[SIZES[0]] * 3))
        assert machine.captured() == machine.replayed() == 0


def test_an_empty_graph_is_found_out(machine: TensorRTLab) -> None:
    machine.driver.graphs_do_nothing()  # without an error; the last output stays where it is
    with open_engine(make_engine(), lanes=2) as runner:
        for seed in range(10):
            check(runner, frames(SIZES[1], seed=seed))
        assert graph_notes(runner) == ["CUDA graphs: 1 x 50x70 runs without: the replay did not give what a run without the graph gives"]
        tried = machine.replayed()
        check(runner, frames(SIZES[1]))
        assert machine.replayed() == tried
        assert machine.count("destroyed a graph") == machine.count("instantiated a graph") == machine.captured()


@pytest.mark.parametrize("who", ["cuda", "tensorrt"])
def test_where_capture_is_refused_it_says_so_and_runs_without(machine: TensorRTLab, who: str) -> None:
    if who == "cuda":
        machine.waits_in_capture = True  # TensorRT says nothing of it, so the end of the capture is what fails
    else:
        machine.captures = False
    with open_engine(make_engine()) as runner:
        for seed in range(4):
            check(runner, frames(SIZES[0], seed=seed))
        (note,) = graph_notes(runner)
        assert note.startswith("CUDA graphs: 1 x 64x96 could not be captured and runs without: ")
        assert ("this cannot be captured" in note) == (who == "tensorrt")
        assert machine.captured() == 2, "it is tried once more"
        assert machine.replayed() == 0


def test_an_output_that_does_not_change_proves_nothing(machine: TensorRTLab) -> None:
    constant = np.arange(480, dtype=np.float32).reshape(1, 5, 8, 12)
    machine.network = lambda images: constant.copy()
    with open_engine(make_engine()) as runner:
        for seed in range(6):
            runner.run(frames(SIZES[0], seed=seed))
        assert graph_notes(runner) == [
            "CUDA graphs: 1 x 64x96 runs without: its output did not change with its input, so the replay could not be checked"
        ]


def test_capture_happens_on_the_engines_own_device(machine: TensorRTLab, gpu: Any) -> None:
    with open_engine(make_engine(), device=1) as runner:
        for seed in range(4):
            gpu.set_current()  # the caller works on GPU 0
            check(runner, frames(SIZES[0], seed=seed))
        assert graph_notes(runner) == []
        assert machine.replayed() > 0


def test_graphs_go_when_the_memory_does_whose_addresses_they_hold(machine: TensorRTLab) -> None:
    with open_engine(make_engine()) as runner:
        for seed in range(3):
            check(runner, frames(SIZES[0], seed=seed))
        assert machine.count("destroyed a graph") == 0
        check(runner, frames(SIZES[2]))
        assert machine.count("destroyed a graph") == 1
        for seed in range(3):
            check(runner, frames(SIZES[0], SIZES[2], seed=seed))
        assert graph_notes(runner) == []


@pytest.mark.parametrize("on_device", [False, True])
def test_a_request_whose_graph_is_tried_out_gets_its_own_labels(machine: TensorRTLab, on_device: bool) -> None:
    """The trial runs on another input; afterwards the request's own is back in place."""
    given = frames(SIZES[1], SIZES[2])
    frames_of: Any = [machine.caller_array(frame) for frame in given] if on_device else given
    with open_engine(make_engine()) as runner:
        for captured in (0, 1, 1):
            assert_labels(runner.run(frames_of), given)
            assert machine.captured() == captured
    for shown, frame in zip(frames_of, given, strict=True):
        np.testing.assert_array_equal(read(shown) if on_device else shown, frame)


def test_the_engines_input_is_as_it_was_after_its_graph_was_tried_out(machine: TensorRTLab) -> None:
    images = np.random.default_rng(0).standard_normal((2, 3, 64, 96), np.float32)
    with open_engine(make_engine()) as runner:
        engine = runner.sessions[0].engine
        engine.input[:2] = images
        for captured in (0, 1, 1):
            engine.start(2)
            np.testing.assert_array_equal(engine.wait(), machine.network(images))
            np.testing.assert_array_equal(engine.input[:2], images)
            assert machine.captured() == captured
