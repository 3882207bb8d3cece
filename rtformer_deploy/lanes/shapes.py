"""What the submissions of a lane have in common with earlier ones: frames of the same sizes from the same kind of memory."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Literal

from ..image.geometry import Size
from .host_copies import HostCopy
from .kernels import FLAG_BYTES
from .memory import FrameMemory, Layout
from .request import LaneWork

#: How many shapes a lane remembers.
_SHAPES = 64

#: Where frames are: in memory of the caller's on the device, in memory that was lent (all or some of them), or anywhere on the host.
Origin = Literal["device", "lent", "host"]
#: How a submission ends: with label maps in host memory, with the output there, or with the output on the device.
Tail = Literal["labels", "output", "device"]


@dataclass(slots=True, eq=False)
class Shape:
    """What all submissions of some sizes from one origin share: where they are in the lane's memory, their copies, their work.

    `frames` copy them to the device: each one, or all of them in one copy from the lane's own memory. `labels` copies the flag and the
    label maps back, `flag` the flag alone; an engine that gives labels has neither. `works` are by tail and batch.
    """

    origin: Origin
    sizes: tuple[Size, ...]
    layout: Layout
    frames: tuple[HostCopy, ...]
    labels: HostCopy | None
    flag: HostCopy | None
    works: dict[tuple[Tail, int], LaneWork] = field(default_factory=dict)


class Shapes:
    """The shapes of a lane whose frames are in `memory`, so that nothing is built for a frame whose shape came before."""

    def __init__(self, stream: Any, memory: FrameMemory, has_logits: bool) -> None:
        self._stream, self._memory, self._has_logits = stream, memory, has_logits
        self._known: OrderedDict[tuple[Origin, tuple[Size, ...]], Shape] = OrderedDict()

    def get(self, gpu: Any, origin: Origin, sizes: tuple[Size, ...]) -> Shape:
        """The shape of a submission; it is made if it is new, or if memory has moved since. Nothing is in flight."""
        shape = self._known.get((origin, sizes))
        if shape is not None:
            self._memory.used(shape.layout)
            return shape
        shape = self._make(gpu, origin, sizes)
        self._known[origin, sizes] = shape
        if len(self._known) > _SHAPES:
            self._known.popitem(last=False)
        return shape

    def forget(self) -> None:
        """Forgets all of them, since memory is about to move."""
        self._known.clear()

    def _make(self, gpu: Any, origin: Origin, sizes: tuple[Size, ...]) -> Shape:
        layout = self._memory.place(gpu, sizes, on_host=origin != "device", with_labels=self._has_logits)
        parts: list[tuple[int, int]] = []
        if origin == "host":
            parts = [(0, layout.frame_bytes)]
        elif origin == "lent":
            parts = [(placed.frame_start, placed.tables.frame_bytes) for placed in layout.placed]
        frames = tuple([HostCopy(self._stream, self._memory.frame_part(*part), inwards=True) for part in parts])
        if not self._has_logits:
            return Shape(origin, sizes, layout, frames, None, None)
        labels, flag = (HostCopy(self._stream, self._memory.labels_part(size), inwards=False) for size in (layout.label_bytes, FLAG_BYTES))
        return Shape(origin, sizes, layout, frames, labels, flag)
