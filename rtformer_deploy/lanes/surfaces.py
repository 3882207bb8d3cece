"""A video decoder's pictures on the GPU -> frames in device memory, which lanes take as they are."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..image.geometry import Size
from ..image.nv12 import YuvFactors
from ..types import Frame
from .buffers import PairedMemory
from .kernels import Plane
from .shared import LaneShare


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """A decoder's picture in NV12: (H, W), its planes, how its colours are meant, and the quarters that it is to be turned by.

    `turns` counts counter-clockwise. The picture is complete when the work is that its decoder has queued in the legacy default stream.
    """

    size: Size
    luma: Plane
    chroma: Plane
    factors: YuvFactors
    turns: int = 0


class GpuFrame:
    """A frame RGB uint8 (H, W, 3) in the GPU's memory, complete; lanes take it without a copy.

    Its memory goes to a later frame as soon as nobody holds the object, so hold it until what reads it is done.
    """

    __slots__ = ("__weakref__", "_copy", "_frames", "_memory", "shape")

    def __init__(self, frames: GpuFrames, memory: PairedMemory, size: Size) -> None:
        self.shape = (*size, 3)
        self._frames, self._memory = frames, memory
        self._copy: Frame | None = None
        weakref.finalize(self, frames.give_back, memory).atexit = False

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {"shape": self.shape, "typestr": "|u1", "data": (self._memory.address, False), "version": 3, "strides": None, "stream": None}

    def on_host(self) -> Frame:
        """The frame in host memory. It is copied once, when it is first asked for. Raises EngineError if the GPU has failed."""
        with self._frames.copying:
            if self._copy is None:
                self._copy = self._frames.copied(self._memory).reshape(self.shape)
        return self._copy


class GpuFrames:
    """Makes the frames of one decoder, one after another, and takes their memory back. It lives as long as any of its frames.

    A frame's memory is used again without asking the GPU: a lane holds a frame until it has waited for the work that reads it, and a copy
    to the host is waited for as well. Frames stay whole after their runner is closed.
    """

    def __init__(self, share: LaneShare) -> None:
        self._share = share
        self.copying = threading.Lock()
        self._free: deque[PairedMemory] = deque()  # its methods are atomic: `give_back` may run anywhere, even within the garbage collector
        with share.current() as gpu:
            self._stream, self._copies = gpu.create_stream(), gpu.create_stream()
            self._complete, self._read, self._copied = (gpu.create_event() for _ in range(3))
        share.health.watch(self)

    def convert(self, surface: Surface) -> GpuFrame:
        """A surface -> the upright frame. When this returns, the surface has been read. Raises EngineError if the GPU has failed."""
        height, width = surface.size
        size = (width, height) if surface.turns % 2 else (height, width)
        with self._at_work(self._read) as gpu:
            memory = self._take(gpu, 3 * height * width)
            self._share.cuda.LEGACY_DEFAULT_STREAM.record(self._complete)  # where FFmpeg's copy into the surface may still be queued
            self._stream.wait(self._complete)
            self._share.kernels.nv12_to_rgb(
                self._stream, surface.luma, surface.chroma, surface.size, surface.factors, memory.address, surface.turns
            )
            # The caller gives the surface back, and the decoder writes its next picture there in an order that is none of ours. It is
            # safe because the kernel is waited for here, in the decoder's own thread, while the lanes go on.
            self._stream.record(self._read)
            self._share.health.wait(self._read)
        return GpuFrame(self, memory, size)

    def copied(self, memory: PairedMemory) -> Frame:
        """A frame's bytes in host memory, a new array. Call it with `copying` held."""
        with self._at_work(self._copied):
            memory.to_host(self._copies)
            self._copies.record(self._copied)
            self._share.health.wait(self._copied)
            return memory.host.copy()

    def give_back(self, memory: PairedMemory) -> None:
        """Takes the memory of a frame that nobody holds any more."""
        self._free.append(memory)

    def _take(self, gpu: Any, size: int) -> PairedMemory:
        """Memory of a frame of so many bytes; what is left from frames of another size is let go."""
        while self._free:
            memory = self._free.popleft()
            if memory.size == size:
                return memory
        return PairedMemory(self._share.cuda, gpu, self._stream, size)

    @contextlib.contextmanager
    def _at_work(self, event: Any) -> Iterator[Any]:
        """Makes the GPU current. If an error in the block broke the GPU, every lane fails, as with the lanes' own work."""

        def probe() -> None:
            with self._share.current():
                event.is_done  # noqa: B018

        with self._share.health.watching(probe), self._share.current() as gpu:
            yield gpu


def on_host(picture: Frame | GpuFrame) -> Frame:
    """A frame, wherever it lies, in host memory."""
    return picture.on_host() if isinstance(picture, GpuFrame) else picture


def in_one_place(pictures: list[Frame | GpuFrame]) -> list[Frame] | list[GpuFrame]:
    """Frames for one submission: on the GPU if all of them are there, otherwise in host memory."""
    on_gpu = [picture for picture in pictures if isinstance(picture, GpuFrame)]
    return on_gpu if len(on_gpu) == len(pictures) else [on_host(picture) for picture in pictures]
