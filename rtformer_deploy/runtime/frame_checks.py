"""Checks that a caller's frames are frames, and whether they are in host or device memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import ImageError
from ..image.decode import MAX_PIXELS


def check_size(size: tuple[int, int]) -> None:
    """Raises ImageError unless (H, W) is a frame's size: whole numbers of at least 1."""
    if not hasattr(size, "__len__") or len(size) != 2 or not (_is_side(size[0]) and _is_side(size[1])):
        raise ImageError(f"{size} is no frame's size; a size is (height, width), both at least 1.")
    if int(size[0]) * int(size[1]) > MAX_PIXELS:
        raise ImageError(f"A frame of {size[0]}x{size[1]} is too large; at most {MAX_PIXELS:,} pixels are taken.")


def _is_side(side: object) -> bool:
    return isinstance(side, int | np.integer) and bool(side > 0)


def is_on_device(frame: object) -> bool:
    """Whether a frame says that it is in device memory."""
    return not isinstance(frame, np.ndarray) and hasattr(frame, "__cuda_array_interface__")


def check_host_frames(frames: Sequence[object]) -> None:
    """Raises ImageError unless every frame is a NumPy array, RGB uint8 (H, W, 3), with at least one pixel."""
    for index, frame in enumerate(frames):
        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
            what = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
            raise ImageError(f"Frame {index} is {what}; a frame is RGB uint8 (H, W, 3).", "Read images with rtformer_deploy.load_image.")
