"""Copies frames to memory that a device reads next, in threads if the native code is there."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..types import Frame
from . import native

_MOST_THREADS = 4  # about as many as keep the memory busy; the other cores have better things to do


def copy_threads(threads: int | None = None) -> int:
    """How many threads copies use: a few of `threads` (None: of the CPUs that this process may use)."""
    return min(_MOST_THREADS, native.usable_threads(threads))


def copy_frame(frame: Frame, target: NDArray[np.uint8], threads: int = 1) -> None:
    """A frame (H, W, 3), contiguous or not -> the same bytes in `target`, contiguous memory of the frame's size. The GIL is released."""
    if native.available() and frame.strides[1:] == (3, 1):
        native.copy_rows(frame, target, threads)
    else:
        np.copyto(target.reshape(frame.shape), frame)
