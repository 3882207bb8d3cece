"""Pinned host memory that callers get as arrays: frames to write into, and label maps. It is used again once nobody reads it."""

from __future__ import annotations

import contextlib
import ctypes
import math
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .buffers import Parts

Bytes = NDArray[np.uint8]
_PAGE = 4096
_LARGER = 4  # a block that is larger than needed by this factor is left to larger requests, if there is another one


class PinnedBlock:
    """One piece of pinned memory, zeros at first.

    Arrays over `memory` keep it allocated, and its `owner` alive, whatever becomes of this object.
    """

    __slots__ = ("_buffer", "_parts", "address", "array", "first_word", "loan", "memory", "size", "users")

    def __init__(self, cuda: Any, size: int, owner: object) -> None:
        self._buffer = cuda.LegacyPinnedMemoryResource().allocate(size)
        self._parts = Parts(cuda, self._buffer)
        self.size = size
        self.address = int(self._buffer.handle)
        memory: Any = (ctypes.c_ubyte * size).from_address(self.address)
        memory.owner = self._buffer, owner
        self.memory = memory
        self.array: Bytes = np.frombuffer(self.memory, np.uint8)  # for the lanes' own use
        self.array[...] = 0
        self.first_word = ctypes.c_int32.from_buffer(self.memory)
        self.loan: Loan | None = None
        self.users: list[bool] = []  # for each one, from the last to the first: whether others are left when it leaves

    def part(self, start: int, size: int) -> Any:
        """A part of the memory as a cuda.core buffer."""
        return self._parts.at(start, size)

    def free(self) -> None:
        """Frees the memory, which waits for all work in the context. Nobody uses it; the context is current."""
        self._buffer.close()


class Loan(weakref.ref[Bytes]):
    """A weak reference to the array through which a caller, and every view that the caller made, reads or writes a block."""

    __slots__ = ("block", "key")

    block: PinnedBlock
    key: int  # the array's id, which no other object has before this reference is called back


class PinnedMemory:
    """Blocks of pinned memory that are lent to callers, at most `most` at a time: `most` may grow. Any thread may use it.

    A block has up to two users: the lane that has taken it, and the array that it was lent through, together with the views of that. The
    last one to leave puts it back. What a garbage collector calls must not wait for a lock, so leaving is one step that cannot be
    interrupted: it takes an element off the block's `users`, which says whether it was the last.

    Blocks come in powers of two, and one and a half times these. Nothing is freed before `close`, since freeing pinned memory waits for
    all work in the context; what is lent then is freed when it comes back. `current` makes the context current.
    """

    def __init__(self, cuda: Any, current: Callable[[], AbstractContextManager[Any]]) -> None:
        self._cuda, self._current = cuda, current
        self._lock = threading.Lock()
        self._free: list[PinnedBlock] = []  # the last one was used last, so it is in the cache, and in a lane's graph
        self._loans: dict[int, Loan] = {}
        self._closed = False
        self.most = 0

    @property
    def lent(self) -> int:
        """How many blocks callers hold."""
        return len(self._loans)

    def take(self, size: int) -> PinnedBlock:
        """A block of at least `size` bytes with any content; `leave` gives it back. Raises what cuda.core raises without memory."""
        with self._lock:
            block = self._take_free(size)
        if block is None:
            with self._current():
                block = PinnedBlock(self._cuda, _rounded(size), self)
        block.users = [False]
        return block

    def lend(self, block: PinnedBlock, shape: tuple[int, ...]) -> Bytes | None:
        """The first bytes of a block that was taken, as an array for a caller; None: `most` are lent, or it is just coming back: copy it.

        The block stays taken until `leave`. Asking again gives the same array again.
        """
        if block.loan is not None:
            return block.loan()
        array = np.ndarray(shape, np.uint8, block.memory)
        loan = Loan(array, self._came_back)
        loan.block, loan.key = block, id(array)
        with self._lock:
            if len(self._loans) >= self.most:
                return None
            block.loan = loan
            block.users.append(True)  # not a new list: whoever had the block lent before may be about to leave it
            self._loans[loan.key] = loan
        return array

    def array(self, shape: tuple[int, ...]) -> Bytes | None:
        """An array with any content that only the caller uses; None: `most` are lent."""
        if len(self._loans) >= self.most:
            return None
        block = self.take(math.prod(shape))
        array = self.lend(block, shape)
        self.leave(block)
        return array

    def place(self, array: NDArray[Any]) -> tuple[PinnedBlock, int] | None:
        """Where a C-contiguous array lies: its block and the offset in it; None: it is not within what was lent."""
        loan = self._loans.get(id(array))
        if loan is not None:
            return loan.block, 0
        loan = self._loans.get(id(array.base))
        if loan is None or not array.flags.c_contiguous:
            return None
        return loan.block, array.__array_interface__["data"][0] - loan.block.address

    def leave(self, block: PinnedBlock) -> None:
        """Whoever took the block does not use it any more."""
        if block.users.pop():
            return
        self._put_back(block)

    def close(self) -> None:
        """Frees what nobody uses. The context is current, and no work is in flight."""
        self._closed = True
        with contextlib.suppress(IndexError):  # none is left, or another thread freed it
            while True:
                self._free.pop().free()

    def _came_back(self, loan: Loan) -> None:
        """The last reference to what was lent is gone. This may run anywhere, even within the garbage collector."""
        if self._loans.pop(loan.key, None) is not None:
            loan.block.loan = None
            self.leave(loan.block)

    def _put_back(self, block: PinnedBlock) -> None:
        self._free.append(block)
        if self._closed and not sys.is_finalizing():
            with self._current():
                self.close()

    def _take_free(self, size: int) -> PinnedBlock | None:
        """A free block: the one that came back last if it fits, otherwise the smallest that does."""
        try:
            block = self._free.pop()
        except IndexError:  # there is none, or `close` has taken the last one
            return None
        if size <= block.size <= _LARGER * size:
            return block
        self._free.append(block)
        fitting = [block for block in self._free if block.size >= size]
        if not fitting:
            return None
        block = min(fitting, key=lambda block: block.size)
        try:
            self._free.remove(block)
        except ValueError:  # `close` has taken it
            return None
        return block


def _rounded(size: int) -> int:
    """The next power of two, or one and a half times such a power; at least a page."""
    size = max(size, _PAGE)
    power = 1 << (size - 1).bit_length()
    return power * 3 // 4 if size <= power * 3 // 4 else power
