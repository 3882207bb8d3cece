"""A caller's frames and streams on the GPU, used without a copy, and label maps on the GPU: PyCUDA, CuPy, torch, cuda.core.

Arrays have `__cuda_array_interface__`. A stream has `__cuda_stream__`, or is a handle, or stores its handle in an attribute: `handle`
(PyCUDA), `ptr` (CuPy) or `cuda_stream` (torch).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ImageError, UsageError
from ..image.geometry import Size
from ..nvidia.driver import memory_owner, stream_context
from ..runtime.frame_checks import check_host_frames, is_on_device
from ..types import Frame

_LEGACY_STREAM = 1  # CU_STREAM_LEGACY, which is what handle 0 means
_DEFAULT_STREAMS = (0, 1, 2)  # 2 is the calling thread's own
_OTHER_CONTEXT = (
    "The runner works in the GPU's primary context. With PyCUDA: import pycuda.autoprimaryctx instead of pycuda.autoinit; torch and CuPy "
    "use the primary one."
)


@dataclass(frozen=True, slots=True)
class DeviceFrame:
    """A frame in device memory: (H, W), its address, the stream to wait for (None: it is ready), and the object that keeps it alive."""

    size: Size
    address: int
    stream: int | None
    owner: Any

    @property
    def shape(self) -> tuple[int, int, int]:
        return (*self.size, 3)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class DeviceLabels:
    """A label map uint8 (H, W) in device memory, complete; `__cuda_array_interface__` shows it to PyCUDA, CuPy and torch.

    The object owns its memory. When the last reference to it is gone, the memory is freed in the order of one stream: the stream object
    that was submitted with the frames (kept alive until then), or else the legacy default stream. Work that is already queued in that
    stream can still read the labels, so reading them there is always safe (the default stream of torch, CuPy and PyCUDA is the legacy
    one). To read them in another stream, keep a reference until that work is done, or make the first stream wait for it.
    """

    shape: Size
    address: int
    owner: Any

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {"shape": self.shape, "typestr": "|u1", "data": (self.address, False), "version": 3, "strides": None, "stream": None}


def check_frames(frames: Sequence[Any]) -> Sequence[Frame] | Sequence[DeviceFrame]:
    """A caller's frames as NumPy arrays or as DeviceFrames, never a mix.

    Raises ImageError if something is not a frame, UsageError if some are in host memory and some on the GPU.
    """
    on_device = [is_on_device(frame) for frame in frames]
    if not any(on_device):
        check_host_frames(frames)
        return frames
    if not all(on_device):
        raise UsageError("Some of the frames are on the GPU and some in host memory.", "Submit them apart.")
    return [device_frame(frame, index) for index, frame in enumerate(frames)]


def device_frame(frame: Any, index: int = 0) -> DeviceFrame:
    """Makes a DeviceFrame from a `__cuda_array_interface__` object. Raises ImageError unless it is RGB uint8 (H, W, 3), C-contiguous."""
    interface = frame.__cuda_array_interface__
    shape, dtype = tuple([int(side) for side in interface["shape"]]), np.dtype(interface["typestr"])
    if dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise ImageError(f"Frame {index} is {dtype} {shape} on the GPU; a frame is RGB uint8 (H, W, 3).")
    strides = interface.get("strides")
    if strides is not None and tuple(map(int, strides)) != (3 * shape[1], 3, 1):
        raise ImageError(
            f"Frame {index} on the GPU is not contiguous: its strides are {tuple(strides)}, not {(3 * shape[1], 3, 1)}.",
            "Make a contiguous copy; the runner copies no frames that are on the GPU already.",
        )
    return DeviceFrame((shape[0], shape[1]), int(interface["data"][0]), _producer_stream(interface), frame)


def _producer_stream(interface: dict[str, Any]) -> int | None:
    """The stream that produces the array; None if the array is complete already.

    Only version 3 of the interface has this key, and it is optional (torch leaves it out). Without it, the array is assumed to be
    produced in the legacy default stream.
    """
    stream: int | None = interface.get("stream", _LEGACY_STREAM) if int(interface.get("version", 0)) >= 3 else _LEGACY_STREAM
    return stream


def check_memory(frame: DeviceFrame, index: int, device: int, context: int) -> None:
    """Raises UsageError unless a frame is device memory of this GPU and of this context, which is current."""
    owner = memory_owner(frame.address)
    if owner is None:
        raise UsageError(f"Frame {index} says that it is on the GPU, but CUDA knows no device memory at its address.")
    if owner[0] != device:
        raise UsageError(f"Frame {index} is on GPU {owner[0]}; this runner works on GPU {device}.", "Open the engine on that GPU.")
    if owner[1] is not None and owner[1] != context:
        raise UsageError(f"Frame {index} belongs to another CUDA context than the runner's.", _OTHER_CONTEXT)


def stream_handle(stream: Any) -> int:
    """The handle of a caller's stream, never 0. Raises UsageError if it is not a stream."""
    handle = _handle(stream)
    if handle is None:
        raise UsageError(
            f"{type(stream).__name__} is no CUDA stream.", "Pass one with __cuda_stream__ (or PyCUDA's, CuPy's or torch's), or its handle."
        )
    return handle or _LEGACY_STREAM


@dataclass(frozen=True, slots=True)
class CallersStream:
    """A caller's stream with its handle. cuda.core accepts it as a stream and keeps it and the caller's object alive."""

    stream: Any
    handle: int

    def __cuda_stream__(self) -> tuple[int, int]:
        return (0, self.handle)


def lasting_stream(stream: Any) -> CallersStream | None:
    """A caller's stream if memory can be freed in its order later, else None.

    None for a bare handle, since its stream may be destroyed before then. None for default streams too: they are the legacy stream, or
    mean a different stream in each thread.
    """
    handle = None if isinstance(stream, int) else _handle(stream)
    return None if handle is None or handle in _DEFAULT_STREAMS else CallersStream(stream, handle)


def check_stream(handle: int, context: int) -> None:
    """Raises UsageError if a stream belongs to another context than the current one."""
    owner = stream_context(handle)
    if owner is not None and owner != context:
        raise UsageError("The stream belongs to another CUDA context than the runner's.", _OTHER_CONTEXT)


def _handle(stream: Any) -> int | None:
    if isinstance(stream, int):
        return stream
    protocol: Callable[[], tuple[int, int]] | None = getattr(stream, "__cuda_stream__", None)
    if protocol is not None:
        return int((protocol() if callable(protocol) else protocol)[1])
    for name in ("cuda_stream", "handle", "ptr"):
        value = getattr(stream, name, None)
        if value is not None:
            return int(value)
    return None
