"""Copies in captured graphs that get other pinned memory later, over real cuda.core and cuda.bindings."""

from __future__ import annotations

from typing import Any

import pytest
from stub_lab import Lab

from rtformer_deploy.errors import EngineError
from rtformer_deploy.nvidia.graph_copies import GraphCopy

SIZE = 4096


class Captured:
    """A graph of two copies, from pinned memory to the device and on to other pinned memory."""

    def __init__(self, lab: Lab) -> None:
        self.stream = lab.stream()
        self.device = lab.device(SIZE, self.stream)
        self.source, self.given = lab.pinned(SIZE, 1)
        self.target, self.made = lab.pinned(SIZE)
        builder = self.stream.create_graph_builder()
        builder.begin_building("thread_local")
        self.device.copy_from(self.source, stream=self.stream)
        self.inwards = GraphCopy(int(self.stream.handle), int(self.source.handle))
        self.device.copy_to(self.target, stream=self.stream)
        self.outwards = GraphCopy(int(self.stream.handle), int(self.target.handle))
        self.graph = builder.end_building().complete()
        self.definition: Any = builder.graph_definition
        builder.close()

    def run(self) -> None:
        self.graph.launch(self.stream)
        self.stream.sync()


def test_copies_go_where_they_are_aimed(lab: Lab) -> None:
    captured = Captured(lab)
    captured.run()
    assert (captured.made == 1).all()
    (other, _), (elsewhere, made) = lab.pinned(SIZE, 2), lab.pinned(SIZE)
    captured.inwards.aim(captured.graph, int(other.handle))
    captured.run()
    assert (captured.made == 2).all()
    captured.outwards.aim(captured.graph, int(elsewhere.handle))
    captured.made[:] = 0
    captured.run()
    assert (made == 2).all()
    assert (captured.made == 0).all()
    captured.inwards.aim(captured.graph, int(captured.source.handle))
    captured.run()
    assert (made == 1).all()


def test_the_same_place_costs_no_call(lab: Lab) -> None:
    captured = Captured(lab)
    lab.driver.forget()
    captured.inwards.aim(captured.graph, int(captured.source.handle))
    assert lab.driver.calls() == {}


def test_what_is_launched_already_copies_as_it_was(lab: Lab) -> None:
    captured = Captured(lab)
    other, _ = lab.pinned(SIZE, 2)
    captured.graph.launch(captured.stream)
    captured.inwards.aim(captured.graph, int(other.handle))
    captured.stream.sync()
    assert (captured.made == 1).all()


def test_memory_of_another_kind_is_refused_and_changes_nothing(lab: Lab) -> None:
    captured = Captured(lab)
    device = lab.device(SIZE, captured.stream)
    with pytest.raises(EngineError, match=r"CUDA does not let a graph copy elsewhere: CUDA_ERROR_INVALID_VALUE\."):
        captured.inwards.aim(captured.graph, int(device.handle))
    captured.run()
    assert (captured.made == 1).all()


def test_the_definition_must_be_there(lab: Lab) -> None:
    captured = Captured(lab)
    other, _ = lab.pinned(SIZE, 2)
    captured.definition = None
    with pytest.raises(EngineError, match="CUDA_ERROR_INVALID_VALUE"):
        captured.inwards.aim(captured.graph, int(other.handle))


def test_only_a_copy_with_that_address_is_taken_for_one(lab: Lab) -> None:
    stream = lab.stream()
    device = lab.device(SIZE, stream)
    pinned, _ = lab.pinned(SIZE)
    builder = stream.create_graph_builder()
    builder.begin_building("thread_local")
    with pytest.raises(EngineError, match="there are 0 last steps"):
        GraphCopy(int(stream.handle), int(pinned.handle))
    device.copy_from(pinned, stream=stream)
    with pytest.raises(EngineError, match="copies something else"):
        GraphCopy(int(stream.handle), int(pinned.handle) + 1)
    device.fill(3, stream=stream)
    with pytest.raises(EngineError, match="CUDA_ERROR_INVALID_VALUE"):
        GraphCopy(int(stream.handle), int(pinned.handle))
    builder.end_building().complete().close()
    builder.close()


def test_a_stream_that_is_not_captured_has_no_nodes(lab: Lab) -> None:
    stream = lab.stream()
    pinned, _ = lab.pinned(SIZE)
    with pytest.raises(EngineError, match="there are 0 last steps"):
        GraphCopy(int(stream.handle), int(pinned.handle))
