"""Calls of FrameKernels with arrays in and arrays out, on any memory: the host's under the emulation, or a GPU's."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from rtformer_deploy.image.nv12 import YuvFactors
from rtformer_deploy.lanes.kernels import FLAG_BYTES, FrameKernels, Plane, palette_bytes
from rtformer_deploy.types import Frame, ModelSpec, Resize, TensorSpec

Size = tuple[int, int]
Float = Literal["float32", "float16"]

GUARD = 64  # bytes before and behind every output, which no kernel may touch
POISON = 0xEE


class Memory(Protocol):
    """Where kernels work: `put` copies bytes there and returns their address, `get` waits and copies as many back."""

    stream: Any

    def put(self, data: NDArray[np.uint8]) -> int: ...

    def get(self, address: int, size: int) -> NDArray[np.uint8]: ...


class HostMemory:
    """The host's own, aligned to 64 bytes."""

    def __init__(self) -> None:
        self.stream = "a stream"
        self._kept: dict[int, NDArray[np.uint8]] = {}

    def put(self, data: NDArray[np.uint8]) -> int:
        room = np.empty(data.size + 64, np.uint8)
        start = -room.ctypes.data % 64
        room[start : start + data.size] = data
        address: int = room.ctypes.data + start
        self._kept[address] = room[start : start + data.size]
        return address

    def get(self, address: int, size: int) -> NDArray[np.uint8]:
        return self._kept[address][:size].copy()


def model_spec(input_size: Size, grid: Size, classes: int, resize: Resize = "stretch") -> ModelSpec:
    """A model with these logits; its first half of classes has colours."""
    palette = tuple((index * 7 % 256, index * 31 % 256, index * 101 % 256) for index in range(classes))
    source = TensorSpec("input", (1, 3, *input_size), "float32")
    logits = TensorSpec("logits", (1, classes, *grid), "float32")
    return ModelSpec("m", {}, tuple(map(str, range(classes))), palette, source, logits, resize=resize)


class Output:
    """Poisoned memory between guards, `offset` bytes off alignment; `array` waits and checks that the guards stand."""

    def __init__(self, memory: Memory, shape: tuple[int, ...], dtype: str, offset: int = 0) -> None:
        self._memory, self._shape, self._dtype = memory, shape, np.dtype(dtype)
        self._start = GUARD + offset
        self._size = int(np.prod(shape)) * self._dtype.itemsize
        self._base = memory.put(np.full(self._start + self._size + GUARD, POISON, np.uint8))
        self.address = self._base + self._start

    def array(self) -> NDArray[Any]:
        data = self._memory.get(self._base, self._start + self._size + GUARD)
        assert (data[: self._start] == POISON).all()
        assert (data[self._start + self._size :] == POISON).all()
        return data[self._start : self._start + self._size].view(self._dtype).reshape(self._shape)


def bytes_of(array: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


class KernelCalls:
    """The kernels of one model on one memory."""

    def __init__(
        self,
        cuda: Any,
        gpu: Any,
        memory: Memory,
        spec: ModelSpec,
        input_dtype: Float = "float32",
        dtype: Float = "float32",
        form: str = "upsample_argmax",
    ) -> None:
        self.kernels = FrameKernels(cuda, gpu, spec, input_dtype, dtype, form)
        self.memory, self.spec, self.input_dtype, self.dtype = memory, spec, input_dtype, dtype

    def preprocess(self, frames: NDArray[np.uint8], index: int = 0, batch: int | None = None) -> NDArray[Any]:
        """Frames (n, H, W, 3) -> the whole input (batch, 3, H', W'), images index .. index + n of it written."""
        count = len(frames)
        tables = self.kernels.tables(frames.shape[1:3])
        out = Output(self.memory, (batch or count, 3, *self.spec.size), self.input_dtype)
        at, frame = self.memory.put(tables.blob), self.memory.put(bytes_of(frames))
        self.kernels.preprocess(self.memory.stream, frame, tables, at, out.address, index, count)
        return out.array()

    def upsample_argmax(
        self, logits: NDArray[Any], size: Size, index: int = 0, count: int = 1, offset: int = 0
    ) -> tuple[NDArray[np.uint8], int]:
        """Logits (N, C, h, w) -> labels (count, H, W), `offset` bytes off alignment, and the flag."""
        tables = self.kernels.tables(size)
        out = Output(self.memory, (count, *size), "uint8", offset)
        at, source = self.memory.put(tables.blob), self.memory.put(bytes_of(logits.astype(self.dtype)))
        flag = self.memory.put(np.zeros(FLAG_BYTES, np.uint8))
        self.kernels.upsample_argmax(self.memory.stream, source, tables, at, out.address, flag, index, count)
        return out.array(), int(self.memory.get(flag, FLAG_BYTES).view(np.int32)[0])

    def overlay(self, frames: Frame, labels: NDArray[np.uint8], alpha: float, offset: int = 0) -> NDArray[np.uint8]:
        """Frames (n, H, W, 3) and labels (n, H, W) -> the coloured frames."""
        count, size = len(frames), labels.shape[1:]
        out = Output(self.memory, frames.shape, "uint8", offset)
        colours = self.memory.put(np.frombuffer(palette_bytes(self.spec.palette), np.uint8))
        source, ids = self.memory.put(bytes_of(frames)), self.memory.put(bytes_of(labels))
        self.kernels.overlay(self.memory.stream, source, ids, colours, len(self.spec.palette), out.address, size, alpha, count)
        return out.array()

    def nv12_to_rgb(
        self, luma: NDArray[np.uint8], chroma: NDArray[np.uint8], factors: YuvFactors, turns: int = 0, padding: int = 0
    ) -> NDArray[np.uint8]:
        """Planes (H, W) and (h, w, 2), whose rows lie `padding` bytes farther apart than they are long -> RGB, turned."""
        height, width = luma.shape
        out = Output(self.memory, (width, height, 3) if turns % 2 else (height, width, 3), "uint8")
        planes = [np.pad(plane, ((0, 0), (0, padding)), constant_values=POISON) for plane in (luma, chroma.reshape(len(chroma), -1))]
        first, second = (Plane(self.memory.put(bytes_of(plane)), plane.shape[1]) for plane in planes)
        self.kernels.nv12_to_rgb(self.memory.stream, first, second, (height, width), factors, out.address, turns)
        return out.array()

    def double_norm(self, x: NDArray[Any], groups: int) -> NDArray[Any]:
        """x (B, C, N) -> the same shape and type."""
        out = Output(self.memory, x.shape, x.dtype.name)
        self.kernels.double_norm(self.memory.stream, self.memory.put(bytes_of(x)), out.address, x.shape, groups, x.dtype.name)
        return out.array()
