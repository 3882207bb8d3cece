"""PyAV's own frames on the stub's GPU, as NVDEC's are: NV12 with a pitch, whose bytes are still on their way, and lost once given back.

A video is decoded on the CPU, and each picture is put on the GPU in the legacy default stream, which FFmpeg works in. What is no fake: PyAV
and FFmpeg open the video for the GPU's context, make the hardware frame, and copy it back where that is asked for.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from av.video.frame import CudaContext, VideoFrame
from numpy.typing import NDArray
from stub_lab import bytes_at

from rtformer_deploy.stream.pyav import Decoder

PITCH = 256  # at least, and a multiple of it
GIVEN_BACK = 0x55


class Turned:
    """A hardware frame with a rotation, which Python cannot set."""

    def __init__(self, frame: VideoFrame, rotation: int) -> None:
        self._frame, self.rotation = frame, rotation

    def __getattr__(self, name: str) -> Any:
        return getattr(self._frame, name)


@functools.cache
def context() -> CudaContext:
    """The stub's primary context, as FFmpeg has it."""
    return CudaContext(device_id=0, primary_ctx=False, current_ctx=True)


class NvdecLab:
    """Puts decoded pictures on the stub's GPU; `live` counts those that nobody gave back."""

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        self.live = self.uploads = 0
        self.wide = False  # as P010, 10 bits
        self._kept: list[Any] = []  # FFmpeg calls what lies in there
        self._pool: list[Any] = []

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """From now on videos that are opened for the GPU give frames on it."""
        decode: Callable[[Decoder, Any], list[VideoFrame]] = Decoder._decode

        def decoded(decoder: Decoder, packet: Any) -> list[Any]:
            pictures = decode(decoder, packet)
            return pictures if decoder._on_gpu is None else [self.upload(picture) for picture in pictures]

        monkeypatch.setattr(Decoder, "_decode", decoded)

    def close(self) -> None:
        """Frees everything. Nothing is queued."""
        self._pool.clear()

    def upload(self, picture: VideoFrame) -> VideoFrame | Turned:
        """A picture in yuv420p -> the same in NV12 or P010 on the GPU, where its bytes arrive when the legacy stream comes to them."""
        device = self._cuda.Device(0)
        device.set_current()
        rows, pitch = self._rows(picture)
        buffer = device.allocate(rows.nbytes, stream=self._cuda.LEGACY_DEFAULT_STREAM)
        pinned = self._cuda.LegacyPinnedMemoryResource().allocate(rows.nbytes)
        bytes_at(int(pinned.handle), rows.nbytes)[:] = rows.reshape(-1).view(np.uint8)
        buffer.copy_from(pinned, stream=self._cuda.LEGACY_DEFAULT_STREAM)
        frame = self._frame(int(buffer.handle), (picture.height, picture.width), pitch, [buffer, pinned])
        for name in ("colorspace", "color_range", "pts", "time_base", "duration"):
            setattr(frame, name, getattr(picture, name))
        self.live += 1
        self.uploads += 1
        return Turned(frame, picture.rotation) if picture.rotation else frame

    def _rows(self, picture: VideoFrame) -> tuple[NDArray[Any], int]:
        """The rows of both planes, one plane below the other, and how many samples a row has."""
        y, u, v = (np.frombuffer(bytes(plane), np.uint8).reshape(plane.height, -1)[:, : plane.width] for plane in picture.planes)
        pitch = -(-picture.width // PITCH) * PITCH
        rows = np.zeros((picture.height * 3 // 2, pitch), np.uint16 if self.wide else np.uint8)
        rows[: picture.height, : picture.width] = y
        rows[picture.height :, : picture.width] = np.stack([u, v], axis=2).reshape(len(u), -1)
        return (rows << 8 if self.wide else rows), pitch

    def _frame(self, address: int, size: tuple[int, int], pitch: int, memory: list[Any]) -> VideoFrame:
        height, width = size
        item = 2 if self.wide else 1
        kept: list[Any] = []

        def give_back(_managed: int | None) -> None:
            """The decoder writes its next picture there, whoever still reads this one."""
            if not memory:
                return  # the other plane was given back first
            bytes_at(address, memory[0].size)[:] = GIVEN_BACK
            self._pool += memory  # FFmpeg keeps it too: the copy into it may still be queued
            memory.clear()
            self.live -= 1

        deleter = _Deleter(give_back)
        planes = ((height, width), (pitch, 1), 0), ((height // 2, width // 2, 2), (pitch, 2, 1), height * pitch * item)
        capsules = tuple(_capsule(address + start, shape, strides, 8 * item, deleter, kept) for shape, strides, start in planes)
        self._kept += [*kept, deleter]
        layout = "p010le" if self.wide else "nv12"
        return VideoFrame.from_dlpack(capsules, format=layout, cuda_context=context(), primary_ctx=False, current_ctx=True)


class _Device(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int32), ("number", ctypes.c_int32))


class _Type(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("dimensions", ctypes.c_int32),
        ("dtype", _Type),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("offset", ctypes.c_uint64),
    )


_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter))


_ON_CUDA, _UNSIGNED = 2, 1


def _capsule(address: int, shape: tuple[int, ...], strides: tuple[int, ...], bits: int, deleter: Any, kept: list[Any]) -> Any:
    """A DLPack capsule (version 0) over device memory; `kept` gets what has to outlive it."""
    count = len(shape)
    sides, steps = (ctypes.c_int64 * count)(*shape), (ctypes.c_int64 * count)(*strides)
    tensor = _Tensor(address, _Device(_ON_CUDA, 0), count, _Type(_UNSIGNED, bits, 1), sides, steps, 0)
    managed = _Managed(tensor, None, deleter)
    kept += [sides, steps, managed]
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    return new(ctypes.addressof(managed), b"dltensor", None)
