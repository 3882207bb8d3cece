"""A lane's memory for frames: their bytes in host and device memory, the tables of their sizes, the labels and the flag."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..image.geometry import Size
from .buffers import PairedMemory
from .graphs import LaneGraphs
from .kernels import FLAG_BYTES, FrameKernels, FrameTables
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


class FrameMemory:
    """A lane's memory for frames. It grows if a submission is larger than all before; otherwise it does not move.

    Memory that is too small now, and the tables of sizes that were not used for long, go back to a MemoryPool. `graphs` are dropped first,
    since they use that memory. The device's context is current in every call. Nothing is in flight during `place` and `close`.
    """

    def __init__(self, cuda: Any, stream: Any, kernels: FrameKernels, max_batch: int, graphs: LaneGraphs | None) -> None:
        self._kernels, self._graphs = kernels, graphs
        self._stream, self._pool = stream, MemoryPool(cuda, stream)
        self._most_tables = TABLES + max_batch
        self._tables: OrderedDict[Size, PairedMemory] = OrderedDict()
        self.frames: PairedMemory | None = None
        self.labels: PairedMemory | None = None

    def place(self, gpu: Any, sizes: Sequence[Size], *, on_host: bool, with_labels: bool) -> list[Placed]:
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
        return placed

    def host_frame(self, placed: Placed) -> NDArray[np.uint8]:
        """The pinned memory of a frame, (H, W, 3)."""
        assert self.frames is not None
        return self.frames.host[placed.frame_start :][: placed.tables.frame_bytes].reshape(*placed.tables.size, 3)

    def host_labels(self, placed: Placed) -> NDArray[np.uint8]:
        """The pinned memory of a label map, (H, W)."""
        assert self.labels is not None
        return self.labels.host[placed.labels_start :][: placed.tables.label_bytes].reshape(placed.tables.size)

    def flag(self) -> int:
        """The flag that came back with the labels."""
        assert self.labels is not None
        return int(self.labels.host[:FLAG_BYTES].view(np.int32)[0])

    def close(self) -> None:
        """Drops the graphs, then frees everything."""
        if self._graphs is not None:
            self._graphs.drop()
        self.frames = self.labels = None
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
        """`memory`, or larger memory in its place if it is too small. Copies are limited to `size`."""
        if memory is not None and memory.size >= size:
            memory.use_first(size)
            return memory
        larger = self._pool.take(gpu, size)
        if memory is not None:
            self._give_back(memory)
        return larger

    def _give_back(self, memory: PairedMemory) -> None:
        if self._graphs is not None:
            self._graphs.drop()
        self._pool.give_back(memory)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
