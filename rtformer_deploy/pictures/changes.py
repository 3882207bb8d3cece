"""Where two label maps of one frame differ, as a picture: the frame dimmed to grey, the changed pixels marked."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..types import Frame

NEAR = (255, 200, 0)  # amber: the best two classes were close
CLEAR = (255, 0, 128)  # magenta: they were not, or it is not known


def draw_changes(frame: Frame, changed: NDArray[np.bool_], near: NDArray[np.bool_] | None = None) -> Frame:
    """A frame (H, W, 3) and masks (H, W) of its changed pixels and of those within the margin -> RGB (H, W, 3)."""
    grey = frame.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    picture = np.repeat((grey * np.float32(0.45)).astype(np.uint8)[:, :, None], 3, axis=2)
    picture[changed] = CLEAR
    if near is not None:
        picture[changed & near] = NEAR
    return picture
