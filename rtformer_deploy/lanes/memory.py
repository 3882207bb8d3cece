"""A lane's memory for frames: their bytes on the device and in pinned memory, the tables of their sizes, the labels and the flag."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..image.geometry import Size
from .buffers import PairedMemory
from .kernels import FLAG_BYTES, FrameKernels, FrameTables
from .pinned import PinnedBlock, PinnedMemory
from .pool import MemoryPool

#: How many sizes keep their tables on the device, besides those of one submission.
TABLES = 16
_ALIGNMENT = 16
LABELS_START = -(-FLAG_BYTES // _ALIGNMENT) * _ALIGNMENT  # the flag and the labels are adjacent, so that one copy moves both


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a frame of one submission is: the address of its tables, and the offsets of its bytes and labels."""

    tables: FrameTables
    tables_at: int
    frame_start: int
    labels_start: int

    @property
    def labels(self) -> slice:
        """Its label map in the memory of the labels."""
        return slice(self.labels_start, self.labels_start + self.tables.label_bytes)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the frames of one submission are, and how many bytes their frames, and the flag with their labels, take."""

    placed: tuple[Placed, ...]
    frame_bytes: int
    label_bytes: int


class FrameMemory:
    """A lane's memory for frames. It grows if a submission is larger than all before; otherwise it does not move.

    `frames` and `labels` are on the device. Frames that are not in pinned memory yet are copied to `staging` first; `pinned` gives that
    memory. Memory that is too small now, and the tables of sizes that were not used for long, go back to a MemoryPool. `forget` is
    called first: from then on no layout from before may be used, nor a graph with its addresses. The device's context is current in
    every call. Nothing is in flight during `place`, `staging` and `close`.
    """

    def __init__(
        self, cuda: Any, stream: Any, kernels: FrameKernels, max_batch: int, pinned: PinnedMemory, forget: Callable[[], object]
    ) -> None:
        self._kernels, self._pinned, self._forget = kernels, pinned, forget
        self._stream, self._pool = stream, MemoryPool(cuda, stream)
        self._most_tables = TABLES + max_batch
        self._tables: OrderedDict[Size, PairedMemory] = OrderedDict()
        self._staging: PinnedBlock | None = None
        self.frames: PairedMemory | None = None
        self.labels: PairedMemory | None = None

    def place(self, gpu: Any, sizes: Sequence[Size], *, on_host: bool, with_labels: bool) -> Layout:
        """Returns where frames of these (H, W) are.

        `on_host`: they need memory for their bytes. `with_labels`: they need memory for label maps of their sizes.
        """
        placed, frame_end, labels_end = [], 0, LABELS_START
        for size in sizes:
            tables = self._kernels.tables(size)
            placed.append(Placed(tables, self._tables_at(gpu, tables), frame_end, labels_end))
            frame_end += _aligned(tables.frame_bytes)
            labels_end += _aligned(tables.label_bytes)
        if on_host:
            self.frames = self._large_enough(gpu, self.frames, frame_end)
        if with_labels:
            self.labels = self._large_enough(gpu, self.labels, labels_end)
        return Layout(tuple(placed), frame_end, labels_end)

    def used(self, layout: Layout) -> None:
        """Notes that a layout is used once more, so that the tables of its sizes stay."""
        for placed in layout.placed:
            self._tables.move_to_end(placed.tables.size)

    def frame_part(self, start: int, size: int) -> Any:
        """A part of the frames' memory on the device, as a cuda.core buffer."""
        assert self.frames is not None
        return self.frames.part(start, size)

    def labels_part(self, size: int) -> Any:
        """The first bytes of the labels' memory on the device, as a cuda.core buffer."""
        assert self.labels is not None
        return self.labels.part(0, size)

    def staging(self, size: int) -> PinnedBlock:
        """The lane's own pinned memory for frames, at least `size` bytes."""
        if self._staging is None or self._staging.size < size:
            smaller, self._staging = self._staging, self._pinned.take(size)
            if smaller is not None:
                self._pinned.leave(smaller)
        return self._staging

    def close(self) -> None:
        """Frees everything, after `forget`."""
        self._forget()
        if self._staging is not None:
            self._pinned.leave(self._staging)
        self._staging = self.frames = self.labels = None
        self._tables.clear()
        self._pool.close()

    def _tables_at(self, gpu: Any, tables: FrameTables) -> int:
        """The address of a size's tables, which are copied to the device if they are new."""
        memory = self._tables.get(tables.size)
        if memory is None:
            if len(self._tables) >= self._most_tables:
                self._give_back(self._tables.popitem(last=False)[1])
            memory = self._pool.take(gpu, tables.blob.nbytes)
            memory.host[: tables.blob.nbytes] = tables.blob
            memory.to_device(self._stream)
            self._tables[tables.size] = memory
        self._tables.move_to_end(tables.size)
        return memory.address

    def _large_enough(self, gpu: Any, memory: PairedMemory | None, size: int) -> PairedMemory:
        """`memory`, or larger memory in its place if it is too small."""
        if memory is not None and memory.size >= size:
            return memory
        larger = self._pool.take(gpu, size, on_host=False)
        if memory is not None:
            self._give_back(memory)
        return larger

    def _give_back(self, memory: PairedMemory) -> None:
        self._forget()
        self._pool.give_back(memory)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
