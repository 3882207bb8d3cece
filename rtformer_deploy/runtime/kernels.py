"""Launches what runs on the GPU beside the engine: plugins/*.cu, compiled for the device with NVRTC through cuda.core.

All addresses are device addresses as integers. Nothing here allocates, copies or waits: whoever owns the stream and the memory (a lane)
does. A launch reads its arguments at once, so it can be captured into a CUDA graph over fixed buffers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import EngineError, MissingPackageError, UsageError
from ..geometry import Size
from ..types import ModelSpec
from .frame_tables import FrameTables, frame_tables

__all__ = ["FrameKernels", "FrameTables", "frame_tables", "palette_bytes"]

#: The bytes of the word that `upsample_argmax` raises where a logit is not finite; the host zeroes it before the launch.
FLAG_BYTES = 4


class FrameKernels:
    """The kernels of one engine on one GPU: frames in, labels and pictures out, with the bits of `image.py`.

    `cuda` is the module cuda.core, `gpu` its Device, whose context is current in the calling thread now and in every call.
    `spec` says what the engine expects; `input_dtype` and `output_dtype` ("float32" or "float16") are the types of the engine's input
    and of its logits ("uint8" for an engine that gives labels, which has no `upsample_argmax`). Kernels are compiled here, once.

    Raises MissingPackageError without cuda-core and NVRTC, EngineError with NVRTC's words where a source does not compile, UsageError
    for a type that no kernel takes. One instance serves any number of streams and threads.
    """

    def __init__(self, cuda: Any, gpu: Any, spec: ModelSpec, input_dtype: str = "float32", output_dtype: str = "float32") -> None:
        raise NotImplementedError

    def tables(self, size: Size) -> FrameTables:
        """A frame's (H, W) -> its tables; the last 64 sizes are kept, so the same object comes back for the same size."""
        raise NotImplementedError

    def preprocess(self, stream: Any, frame: int, tables: FrameTables, at: int, out: int, index: int = 0, count: int = 1) -> None:
        """Enqueues: RGB uint8 frames (count, H, W, 3) at `frame` -> images index .. index + count of the engine's input at `out`.

        `at` is the address of `tables.blob` on the device. `out` is the whole batch (N, 3, H', W'). What a letterboxed picture does
        not cover is zeroed. Equal to `image.preprocess`, for FP16 rounded to nearest even.
        """
        raise NotImplementedError

    def upsample_argmax(
        self, stream: Any, logits: int, tables: FrameTables, at: int, labels: int, flag: int, index: int = 0, count: int = 1
    ) -> None:
        """Enqueues: images index .. index + count of the logits (N, C, h, w) at `logits` -> uint8 (count, H, W) at `labels`.

        `flag` is an int32 on the device that is set to 1 where a logit is NaN or infinite, and else left: zero it before (a memset on
        the same stream), read it back with the labels, then hand it to `check_flag`. Equal to `image.upsample_argmax`.
        """
        raise NotImplementedError

    def overlay(
        self, stream: Any, frame: int, labels: int, palette: int, out: int, size: Size, alpha: float = 0.5, count: int = 1
    ) -> None:
        """Enqueues: frames (count, H, W, 3) and labels (count, H, W) of (H, W) `size` -> the coloured frames at `out`.

        `palette` is the address of `palette_bytes(spec.palette)` on the device; alpha=1 gives the colours alone. `out` may be
        `frame`. Equal to `image.overlay`.
        """
        raise NotImplementedError

    def double_norm(
        self, stream: Any, x: int, out: int, shape: tuple[int, int, int], groups: int, dtype: str = "float16"
    ) -> None:
        """Enqueues: x (B, C, N) at `x` -> softmax over N, then over the sum of each of `groups` groups of C / groups channels + 1e-6.

        FP32 inside; `dtype` ("float16" or "float32") is that of x and `out`, which may not overlap. Raises UsageError where `groups` does
        not divide C or a group holds more than 2048 channels.
        """
        raise NotImplementedError


def check_flag(flag: int) -> None:
    """The flag word that `upsample_argmax` left -> nothing, or raises the EngineError that `image.upsample_argmax` raises."""
    raise NotImplementedError


def palette_bytes(palette: Sequence[Sequence[int]]) -> bytes:
    """One RGB triple a class -> 768 bytes, one triple for each of 256 ids; ids without a colour are black."""
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(palette)] = palette
    return colours.tobytes()
