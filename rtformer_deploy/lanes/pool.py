"""A lane's memory, which is reused and not freed while the lane is open."""

from __future__ import annotations

from typing import Any

from .buffers import PairedMemory


class MemoryPool:
    """Blocks of PairedMemory, freed only in `close`. Before that, a block that was given back waits for the next `take`.

    Freeing pinned memory waits for all work in the CUDA context. So a lane that frees a block would wait for the other lanes, and for
    ever if the GPU hangs. Blocks that wait for reuse do not pile up, since sizes are rounded up to powers of two: memory that grows step
    by step leaves smaller blocks behind, and all of them together are smaller than its last one.

    The device's context is current in every call, and nothing in flight uses a block that is given back.
    """

    def __init__(self, cuda: Any, stream: Any) -> None:
        self._cuda, self._stream = cuda, stream
        self._blocks: list[PairedMemory] = []  # all, so that no block is freed because nobody holds it
        self._free: list[PairedMemory] = []

    def take(self, gpu: Any, size: int, *, on_host: bool = True) -> PairedMemory:
        """A block of at least `size` bytes with any content, on the device and, unless `on_host` is False, in pinned memory.

        Its own copies move `size` bytes.
        """
        fitting = [block for block in self._free if block.size >= size]
        block = min(fitting, key=lambda block: block.size) if fitting else self._allocate(gpu, size)
        if on_host:
            block.host  # noqa: B018 - reading it allocates the pinned memory
        self._free.remove(block)
        block.use_first(size)
        return block

    def give_back(self, block: PairedMemory) -> None:
        """Call when nothing uses the block any more, graphs included."""
        self._free.append(block)

    def close(self) -> None:
        """Frees all blocks."""
        self._free.clear()
        while self._blocks:
            self._blocks.pop().close(self._stream)

    def _allocate(self, gpu: Any, size: int) -> PairedMemory:
        block = PairedMemory(self._cuda, gpu, self._stream, 1 << (size - 1).bit_length())
        self._blocks.append(block)
        self._free.append(block)
        return block
