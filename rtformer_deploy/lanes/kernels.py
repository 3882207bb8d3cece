"""Launches the kernels that run on the GPU besides the engine: plugins/*.cu, compiled for the device with NVRTC through cuda.core.

All addresses are device addresses as integers. Nothing here allocates, copies or waits: the owner of the stream and the memory (a
lane) does that. A launch reads its arguments at once, so it can be captured into a CUDA graph over fixed buffers.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..errors import UsageError
from ..image.frames import normalisation
from ..image.geometry import Size, Window
from ..image.nv12 import YuvFactors
from ..image.upsample import not_finite
from ..nvidia.nvrtc import compile_kernel_file
from ..types import ModelSpec
from .frame_tables import INPUT_TABLES, OUTPUT_TABLES, FrameTables, frame_tables, logits_shape

__all__ = ["FLAG_BYTES", "FrameKernels", "FrameTables", "Plane", "check_flag", "frame_tables", "palette_bytes"]

#: The size of the flag that `upsample_argmax` sets if a logit is not finite. The caller sets it to zero before the launch.
FLAG_BYTES = 4

_SUFFIX = {"float32": "f32", "float16": "f16"}

# The same numbers as in the sources; tests check that they agree.
_PREPROCESS_BLOCK = (32, 8)
_UPSAMPLE_THREADS = 256
_OVERLAY_THREADS, _OVERLAY_PIXELS = 256, 4
_NV12_THREADS, _NV12_PIXELS = 256, 4
_NORM_THREADS, _NORM_MAX_GROUP, _WARP = 1024, 2048, 32

#: The forms of `upsample_argmax`, by the name of their source, and how many cells (high, wide) a block of each makes. The first is the one
#: that lanes use; `benchmarks/gpu_kernels.py` measures all.
UPSAMPLE_FORMS = {"upsample_argmax": (7, 31), "upsample_argmax_warp": (4, 32)}

#: How many frame sizes have their tables and launches cached.
_SIZES = 64


@dataclass(frozen=True, slots=True)
class _Launch:
    """What all launches of a kernel for one frame size share. `before` and `after` are the arguments before and after an address."""

    config: Any
    before: tuple[np.int32, ...]
    after: tuple[np.int32, ...]


class Plane(NamedTuple):
    """A plane of a picture on the device: its address, and how many bytes after a row the next one begins."""

    address: int
    pitch: int


class FrameKernels:
    """The kernels of one engine on one GPU: frames in, labels and pictures out, with results equal to `image.frames` bit for bit.

    `cuda` is the module cuda.core, `gpu` its Device, whose context is current in the calling thread now and in every call.
    `spec` says what the engine expects; `input_dtype` and `output_dtype` ("float32" or "float16") are the types of the engine's input
    and of its logits ("uint8" for an engine that gives labels, which has no `upsample_argmax`). The kernels are compiled here, except
    those of `nv12_to_rgb` and `double_norm`, which are compiled on their first call. `upsample_form` is a name in `UPSAMPLE_FORMS`; all
    forms give the same labels.

    Raises MissingPackageError without NVRTC, EngineError with NVRTC's message if a source does not compile, or if the output
    cannot give a label map, UsageError for a type that no kernel takes. One instance serves any number of streams and threads.
    """

    def __init__(
        self,
        cuda: Any,
        gpu: Any,
        spec: ModelSpec,
        input_dtype: str = "float32",
        output_dtype: str = "float32",
        upsample_form: str = "upsample_argmax",
    ) -> None:
        self._cuda, self._gpu, self._spec = cuda, gpu, spec
        capability = gpu.compute_capability
        self._arch = f"{capability.major}{capability.minor}"
        self._input_bytes = np.dtype(input_dtype).itemsize
        self._output_bytes = np.dtype(output_dtype).itemsize
        self._factors = tuple(np.concatenate(normalisation(spec.mean, spec.std)))
        self._kernels: dict[str, Any] = {}
        self._preprocess = self._kernel("preprocess", input_dtype)
        self._overlay = self._kernel("overlay")
        self._upsample = None if spec.head == "labels" else self._kernel(upsample_form, output_dtype)
        if self._upsample is not None:
            self._logits = logits_shape(spec)
        cached = functools.lru_cache(maxsize=_SIZES)
        self._tables = cached(functools.partial(frame_tables, spec))
        self._preprocess_launch = cached(functools.partial(_preprocess_launch, cuda, spec.size))
        self._upsample_launch = cached(functools.partial(_upsample_launch, cuda, spec, UPSAMPLE_FORMS[upsample_form]))

    def tables(self, size: Size) -> FrameTables:
        """The tables for a frame of (H, W) `size`. The last 64 sizes are cached, and the same size gives the same object."""
        return self._tables(size)

    def preprocess(self, stream: Any, frame: int, tables: FrameTables, at: int, out: int, index: int = 0, count: int = 1) -> None:
        """Enqueues: RGB uint8 frames (count, H, W, 3) at `frame` -> images index .. index + count of the engine's input at `out`.

        `at` is the address of `tables.blob` on the device. `out` is the whole batch (N, 3, H', W'). The border of a
        letterboxed frame is set to zero. Equal to `image.preprocess`; FP16 rounds to nearest even.
        """
        height, width = self._spec.size
        launch = self._preprocess_launch(tables.size, tables.part, count)
        target = out + index * 3 * height * width * self._input_bytes
        addresses = [at + tables.offsets[name] for name in INPUT_TABLES]
        arguments = (frame, *launch.before, target, *launch.after, *addresses, *self._factors)
        self._cuda.launch(stream, launch.config, self._preprocess, *arguments)

    def upsample_argmax(
        self, stream: Any, logits: int, tables: FrameTables, at: int, labels: int, flag: int, index: int = 0, count: int = 1
    ) -> None:
        """Enqueues: images index .. index + count of the logits (N, C, h, w) at `logits` -> uint8 (count, H, W) at `labels`.

        `flag` is an int32 on the device that is set to 1 if a logit is NaN or infinite, and is not written otherwise. Set it to
        zero first (a memset on the same stream), read it back with the labels, then pass it to `check_flag`.
        Equal to `image.upsample_argmax`. Raises UsageError if the engine gives labels itself.
        """
        if self._upsample is None:
            raise UsageError("This engine was built with --head labels: it has no logits to interpolate.")
        classes, height, width = self._logits
        launch = self._upsample_launch(tables.size, count)
        source = logits + index * classes * height * width * self._output_bytes
        addresses = [at + tables.offsets[name] for name in OUTPUT_TABLES]
        arguments = (source, *launch.before, labels, *launch.after, *addresses, flag)
        self._cuda.launch(stream, launch.config, self._upsample, *arguments)

    def overlay(
        self, stream: Any, frame: int, labels: int, palette: int, colours: int, out: int, size: Size, alpha: float = 0.5, count: int = 1
    ) -> None:
        """Enqueues: frames (count, H, W, 3) and labels (count, H, W) of (H, W) `size` -> the coloured frames at `out`.

        `palette` is the address of `palette_bytes(spec.palette)` on the device, `colours` how many colours the palette has: a pixel with
        another label stays as it is. alpha=1 gives the colours alone. `out` may be `frame`. Equal to `image.overlay`. Raises UsageError
        for an alpha outside 0 .. 1.
        """
        if not 0 <= alpha <= 1:
            raise UsageError(f"alpha is a share from 0 to 1, not {alpha}.")
        pixels = count * size[0] * size[1]
        grid = (-(-pixels // (_OVERLAY_THREADS * _OVERLAY_PIXELS)),)
        arguments = (frame, labels, palette, np.int32(colours), np.float32(1 - alpha), np.float32(alpha), pixels, out)
        self._launch(stream, grid, (_OVERLAY_THREADS,), self._overlay, arguments)

    def nv12_to_rgb(self, stream: Any, luma: Plane, chroma: Plane, size: Size, factors: YuvFactors, out: int, turns: int = 0) -> None:
        """Enqueues: a decoder's picture of (H, W) `size` in NV12 -> RGB (H, W, 3) at `out`, `turns` quarters counter-clockwise.

        After an odd number of turns it is (W, H, 3). `out` is aligned to four bytes. Equal to `image.nv12.nv12_to_rgb`.
        """
        kernel = self._kernel("nv12_to_rgb")
        grid = (-(-size[0] * size[1] // (_NV12_THREADS * _NV12_PIXELS)),)
        planes = (luma.address, np.int32(luma.pitch), chroma.address, np.int32(chroma.pitch))
        self._launch(stream, grid, (_NV12_THREADS,), kernel, (*planes, *_ints(*size, turns % 4, *factors), out))

    def double_norm(self, stream: Any, x: int, out: int, shape: tuple[int, int, int], groups: int, dtype: str = "float16") -> None:
        """Enqueues: x (B, C, N) at `x` -> softmax over N, then over the sum of each of `groups` groups of C / groups channels + 1e-6.

        It computes in FP32. `dtype` ("float16" or "float32") is the type of x and `out`, which must not overlap. Raises UsageError if
        `groups` does not divide C or a group holds more than 2048 channels.
        """
        images, channels, positions = shape
        size, rest = divmod(channels, groups)
        if rest or size > _NORM_MAX_GROUP:
            raise UsageError(f"{channels} channels do not fall into {groups} groups of at most {_NORM_MAX_GROUP}.")
        kernel = self._kernel("grouped_double_norm", dtype)
        slice_ = norm_slice(positions, images * groups, self._gpu.properties.multiprocessor_count)
        grid = (-(-positions // slice_), images * groups)
        self._launch(stream, grid, (_NORM_THREADS,), kernel, (x, *_ints(size, positions, slice_), out))

    def _kernel(self, name: str, dtype: str | None = None) -> Any:
        """The kernel for a type; compiles it on first use."""
        if dtype is not None and dtype not in _SUFFIX:
            raise UsageError(f"The kernel {name} takes float32 and float16, not {dtype}.")
        full = name if dtype is None else f"{name}_{_SUFFIX[dtype]}"
        if full not in self._kernels:
            self._kernels[full] = compile_kernel_file(self._cuda, name, self._arch).get_kernel(full)
        return self._kernels[full]

    def _launch(self, stream: Any, grid: tuple[int, ...], block: tuple[int, ...], kernel: Any, arguments: Sequence[Any]) -> None:
        self._cuda.launch(stream, self._cuda.LaunchConfig(grid=grid, block=block), kernel, *arguments)


def _preprocess_launch(cuda: Any, model: Size, size: Size, part: Window, count: int) -> _Launch:
    """The launch for `count` frames of (H, W) `size`, which cover `part` of the engine's input of (H', W') `model`."""
    grid = (-(-model[1] // _PREPROCESS_BLOCK[0]), -(-model[0] // _PREPROCESS_BLOCK[1]), count)
    window = _ints(*model, part.top, part.left, part.height, part.width)
    return _Launch(cuda.LaunchConfig(grid=grid, block=_PREPROCESS_BLOCK), _ints(*size), window)


def _upsample_launch(cuda: Any, spec: ModelSpec, cells: tuple[int, int], size: Size, count: int) -> _Launch:
    """The launch for the logits of `count` frames of (H, W) `size`, whose blocks make (high, wide) `cells` each."""
    classes, height, width = logits_shape(spec)
    grid = (-(-(width + 1) // cells[1]), -(-(height + 1) // cells[0]), count)
    return _Launch(cuda.LaunchConfig(grid=grid, block=(_UPSAMPLE_THREADS,)), _ints(classes, height, width), _ints(*size))


def norm_slice(positions: int, groups: int, multiprocessors: int) -> int:
    """How many of the `positions` of a group one block writes, so that the blocks of all `groups` fill the GPU once.

    A slice may be smaller than a block. Then some threads idle while it is written, but the multiprocessors share the work. It has at
    least as many positions as a warp has threads, since a warp reads together.
    """
    slices = max(1, multiprocessors // groups)
    return max(-(-positions // slices), min(positions, _WARP))


def check_flag(flag: int) -> None:
    """Raises the EngineError of `image.upsample_argmax` if `upsample_argmax` set its flag."""
    if flag:
        raise not_finite()


def palette_bytes(palette: Sequence[Sequence[int]]) -> bytes:
    """The palette (one RGB triple for each class) as 768 bytes, one triple for each of 256 ids. Ids without a colour are black."""
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(palette)] = palette
    return colours.tobytes()


def _ints(*values: int) -> tuple[np.int32, ...]:
    """The values as C ints; cuda.core would pass a Python int as 8 bytes, like an address."""
    return tuple(map(np.int32, values))
