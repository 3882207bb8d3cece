"""Pinned memory's lending, over ordinary memory: a block goes back once, in whatever order its users leave, and after the last of them."""

from __future__ import annotations

import contextlib
import ctypes
from typing import Any

import pytest

from rtformer_deploy.lanes.pinned import PinnedBlock, PinnedMemory

SHAPE = (16,)


class Memory:
    """What cuda.core gives for pinned memory."""

    def __init__(self, size: int) -> None:
        self.size, self._bytes = size, (ctypes.c_ubyte * size)()
        self.handle = ctypes.addressof(self._bytes)

    def close(self) -> None:
        pass


class Cuda:
    """The part of cuda.core that pinned memory needs."""

    class LegacyPinnedMemoryResource:
        def allocate(self, size: int) -> Memory:
            return Memory(size)


@pytest.fixture
def pinned() -> PinnedMemory:
    memory = PinnedMemory(Cuda, contextlib.nullcontext)
    memory.most = 2
    return memory


def free(memory: PinnedMemory) -> list[PinnedBlock]:
    return list(memory._free)


@pytest.mark.parametrize("lane_first", [True, False])
def test_a_block_goes_back_when_both_have_left(pinned: PinnedMemory, lane_first: bool) -> None:
    block = pinned.take(16)
    array = pinned.lend(block, SHAPE)
    view = None if array is None else array[2:]
    if lane_first:
        pinned.leave(block)
    del array
    assert free(pinned) == []
    del view
    if not lane_first:
        assert free(pinned) == []
        pinned.leave(block)
    assert free(pinned) == [block]
    assert pinned.lent == 0


def test_a_block_that_is_lent_again_while_it_comes_back_stays_taken(pinned: PinnedMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that gives a view back may be held up before it leaves the block, for as long as a whole frame of the lane takes."""
    block = pinned.take(16)
    kept: list[Any] = [pinned.lend(block, SHAPE)]
    leave = pinned.leave

    def late(left: PinnedBlock) -> None:
        monkeypatch.setattr(pinned, "leave", leave)
        kept.append(pinned.lend(block, SHAPE))  # the next frame, meanwhile
        leave(left)

    monkeypatch.setattr(pinned, "leave", late)
    kept[0] = None
    assert kept[1] is not None
    assert free(pinned) == []
    kept.clear()
    assert free(pinned) == [], "the lane still has it"
    pinned.leave(block)
    assert free(pinned) == [block]


def test_beyond_the_most_there_is_nothing_to_lend(pinned: PinnedMemory) -> None:
    kept = [pinned.array(SHAPE) for _ in range(3)]
    assert [array is None for array in kept] == [False, False, True]
    kept.clear()
    assert len(free(pinned)) == 2
    assert pinned.array(SHAPE) is not None
