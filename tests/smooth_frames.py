"""Frames for tests, drawn; imports NumPy alone, so a machine that has little more than a GPU's packages can use it."""

from __future__ import annotations

import numpy as np

from rtformer_deploy.types import Frame


def frames(*sizes: tuple[int, int], seed: int = 0) -> list[Frame]:
    """One smooth random RGB frame for each (H, W)."""
    rng = np.random.default_rng(seed)
    return [_smooth(rng, height, width) for height, width in sizes]


def _smooth(rng: np.random.Generator, height: int, width: int) -> Frame:
    coarse = rng.integers(0, 256, (-(-height // 8), -(-width // 8), 3), np.uint8)
    return np.ascontiguousarray(coarse.repeat(8, 0).repeat(8, 1)[:height, :width])
