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
from .kernels import FLAG_BYTES, FrameKernels, FrameTables

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

    The device's context is current in every call. Nothing is in flight during `place` and `close`.
    """

    def __init__(self, cuda: Any, stream: Any, kernels: FrameKernels, max_batch: int) -> None:
        self._cuda, self._stream, self._kernels = cuda, stream, kernels
        self._most_tables = TABLES + max_batch
        self._tables: OrderedDict[Size, PairedMemory] = OrderedDict()
        self.frames: PairedMemory | None = None
        self.labels: PairedMemory | None = None

    def place(self, gpu: Any, sizes: Sequence[Size], *, on_host: bool, with_labels: bool) -> tuple[list[Placed], bool]:
        """Returns where frames of these (H, W) are, and whether memory was freed that a graph may still use.

        `on_host`: they need memory for their bytes. `with_labels`: they need memory for label maps of their sizes.
        """
        placed, frame_end, labels_end, moved = [], 0, LABELS_START, False
        for size in sizes:
            tables = self._kernels.tables(size)
            address, evicted = self._tables_at(gpu, tables)
            placed.append(Placed(tables, address, frame_end, labels_end))
            frame_end += _aligned(tables.frame_bytes)
            labels_end += _aligned(tables.label_bytes)
            moved |= evicted
        if on_host:
            moved |= self._reserve(gpu, "frames", frame_end)
        if with_labels:
            moved |= self._reserve(gpu, "labels", labels_end)
        return placed, moved

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
        """Frees everything."""
        for memory in (self.frames, self.labels, *self._tables.values()):
            if memory is not None:
                memory.close(self._stream)
        self.frames = self.labels = None
        self._tables.clear()

    def _tables_at(self, gpu: Any, tables: FrameTables) -> tuple[int, bool]:
        """The address of a size's tables (copied to the device if they are new), and whether other tables were freed."""
        memory = self._tables.get(tables.size)
        if memory is not None:
            self._tables.move_to_end(tables.size)
            return memory.address, False
        memory = PairedMemory(self._cuda, gpu, self._stream, tables.blob.nbytes)
        memory.host[...] = tables.blob
        memory.to_device(self._stream)
        self._tables[tables.size] = memory
        if len(self._tables) <= self._most_tables:
            return memory.address, False
        self._tables.popitem(last=False)[1].close(self._stream)
        return memory.address, True

    def _reserve(self, gpu: Any, name: str, size: int) -> bool:
        """Allocates `frames` or `labels` again if it is too small, and limits copies to `size`. Returns whether old memory was freed."""
        memory: PairedMemory | None = getattr(self, name)
        too_small = memory is not None and memory.size < size
        if memory is not None and too_small:
            setattr(self, name, None)
            memory.close(self._stream)
        if memory is None or too_small:
            memory = PairedMemory(self._cuda, gpu, self._stream, size)
            setattr(self, name, memory)
        assert memory.host.size >= size  # reading `host` also allocates it
        memory.use_first(size)
        return too_small


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
