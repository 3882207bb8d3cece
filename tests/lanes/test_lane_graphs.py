"""CUDA graphs of lanes over a fake GPU: captured once a shape, proved before they are trusted, done without where they cannot be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import frames
from lane_checks import SIZES, check, reference
from null import PRIMARY, NullCudaError, Stream
from null_engines import install, make_engine
from null_tensorrt import NullTensorRT

from rtformer_deploy.backends import open_engine


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> NullTensorRT:
    return install(monkeypatch)


def graph_notes(runner: Any) -> list[str]:
    return [note for note in runner.notes if note.startswith("CUDA graphs:")]


def test_a_shape_is_captured_once_and_replayed_from_then_on(machine: NullTensorRT) -> None:
    with open_engine(make_engine()) as runner:
        for seed in range(6):
            for size in SIZES:
                check(runner, frames(size, seed=seed))
        assert machine.count("capture") == len(SIZES)
        executed, replayed = machine.count("execute"), machine.count("replay")
        check(runner, frames(*SIZES, seed=9))
        assert machine.count("execute") == executed
        assert machine.count("replay") == replayed + len(SIZES)
        assert graph_notes(runner) == []


def test_a_replay_is_one_launch_that_does_everything(machine: NullTensorRT) -> None:
    with open_engine(make_engine()) as runner:
        check(runner, [frames(SIZES[1], seed=seed)[0] for seed in range(3)])
        assert machine.calls(lambda: check(runner, frames(SIZES[1], seed=7))) == {"replay": 1}


def test_each_batch_has_its_own_graph(machine: NullTensorRT) -> None:
    with open_engine(make_engine()) as runner:
        for seed in range(4):
            for batch in (3, 1, 2):
                given = frames(*[SIZES[0]] * batch, seed=seed)
                for labels, frame in zip(runner.run(given), given, strict=True):
                    np.testing.assert_array_equal(labels, reference(frame))
        assert graph_notes(runner) == []
        assert machine.count("replay") >= 6


def test_without_graphs_nothing_is_captured(machine: NullTensorRT) -> None:
    with open_engine(make_engine(), graphs=False) as runner:
        check(runner, frames(*[SIZES[0]] * 3))
        assert machine.count("capture") == machine.count("replay") == 0


def test_an_empty_graph_is_found_out(machine: NullTensorRT) -> None:
    machine.graph_fault = "empty"  # replays without an error and leaves the last output where it is
    with open_engine(make_engine(), lanes=2) as runner:
        for seed in range(10):
            check(runner, frames(SIZES[1], seed=seed))
        assert graph_notes(runner) == ["CUDA graphs: 1 x 50x70 runs without: the replay did not give what a run without the graph gives"]
        tried = machine.count("replay")
        check(runner, frames(SIZES[1]))
        assert machine.count("replay") == tried
        assert machine.count("close graph") == machine.count("capture")


@pytest.mark.parametrize("who", ["cuda", "tensorrt"])
def test_where_capture_is_refused_it_says_so_and_runs_without(machine: NullTensorRT, who: str) -> None:
    if who == "cuda":
        machine.graph_fault = "refused"
    else:
        machine.captures = False
    with open_engine(make_engine()) as runner:
        for seed in range(4):
            check(runner, frames(SIZES[0], seed=seed))
        (note,) = graph_notes(runner)
        assert note.startswith("CUDA graphs: 1 x 64x96 could not be captured and runs without: ")
        assert machine.count("capture") == 2, "it is tried once more"
        assert machine.count("replay") == 0


def test_an_output_that_does_not_change_proves_nothing(machine: NullTensorRT) -> None:
    constant = np.arange(480, dtype=np.float32).reshape(1, 5, 8, 12)
    machine.network = lambda images: constant.copy()
    with open_engine(make_engine()) as runner:
        for seed in range(6):
            runner.run(frames(SIZES[0], seed=seed))
        assert graph_notes(runner) == [
            "CUDA graphs: 1 x 64x96 runs without: its output did not change with its input, so the replay could not be checked"
        ]


def test_capture_happens_on_the_engines_own_device(machine: NullTensorRT) -> None:
    with open_engine(make_engine(), device=1) as runner:
        for seed in range(4):
            machine.here.context = PRIMARY  # the caller works on GPU 0
            check(runner, frames(SIZES[0], seed=seed))
        assert graph_notes(runner) == []
        assert machine.count("replay") > 0


def test_graphs_go_when_the_memory_does_whose_addresses_they_hold(machine: NullTensorRT) -> None:
    with open_engine(make_engine()) as runner:
        for seed in range(3):
            check(runner, frames(SIZES[0], seed=seed))
        assert machine.count("close graph") == 0
        check(runner, frames(SIZES[2]))
        assert machine.count("close graph") == 1
        for seed in range(3):
            check(runner, frames(SIZES[0], SIZES[2], seed=seed))
        assert graph_notes(runner) == []


@pytest.mark.parametrize("on_device", [False, True])
def test_a_request_whose_graph_is_tried_out_gets_its_own_labels(machine: NullTensorRT, on_device: bool) -> None:
    """The trial runs on another input; afterwards the request's own is back in place."""
    given = frames(SIZES[1], SIZES[2])
    frames_of: Any = [machine.caller_array(frame) for frame in given] if on_device else given
    with open_engine(make_engine()) as runner:
        for captures in (0, 1, 1):
            for labels, frame in zip(runner.run(frames_of), given, strict=True):
                np.testing.assert_array_equal(labels, reference(frame))
            assert machine.count("capture") == captures
    for shown, frame in zip(frames_of, given, strict=True):
        np.testing.assert_array_equal(machine.read(shown) if on_device else shown, frame)


def test_the_engines_input_is_as_it_was_after_its_graph_was_tried_out(machine: NullTensorRT) -> None:
    images = np.random.default_rng(0).standard_normal((2, 3, 64, 96), np.float32)
    with open_engine(make_engine()) as runner:
        engine = runner.sessions[0].engine
        engine.input[:2] = images
        for captures in (0, 1, 1):
            engine.start(2)
            np.testing.assert_array_equal(engine.wait(), machine.network(images))
            np.testing.assert_array_equal(engine.input[:2], images)
            assert machine.count("capture") == captures


# The fake's own rules, without which these tests would say little.


def test_a_graph_that_was_captured_with_another_device_current_is_empty(machine: NullTensorRT) -> None:
    machine.here.context = PRIMARY
    stream, ran = Stream(machine, 0), list[int]()
    for context, expected in ((PRIMARY + 1, []), (PRIMARY, [1])):
        machine.here.context = context
        builder = stream.create_graph_builder()
        builder.begin_building("thread_local")
        stream.enqueue(lambda: ran.append(1))
        graph = builder.end_building().complete()
        graph.launch(stream)
        stream.sync()
        assert ran == expected


@pytest.mark.parametrize("forbidden", ["allocate", "wait"])
def test_what_is_forbidden_in_a_capture_spoils_it(machine: NullTensorRT, forbidden: str) -> None:
    device = machine.cuda.Device(0)
    device.set_current()
    stream = device.create_stream()
    builder = stream.create_graph_builder()
    builder.begin_building("thread_local")
    with pytest.raises(NullCudaError, match="CAPTURE_UNSUPPORTED"):
        device.allocate(8, stream=stream) if forbidden == "allocate" else stream.sync()
    with pytest.raises(NullCudaError, match="CAPTURE_INVALIDATED"):
        builder.end_building()
