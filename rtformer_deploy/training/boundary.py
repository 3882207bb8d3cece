"""Label maps -> where classes meet, so that the loss can weigh thin things and edges more."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: How many pixels from a boundary are near it. Poles and signs of CamVid at 360x480 are a few pixels wide, so all of them is near.
REACH = 2


def near_boundary(labels: Tensor, ignore: int) -> Tensor:
    """Labels (N, H, W) -> (N, H, W) bool: whether two classes meet within `REACH` pixels. The ignored id is no class."""
    ids = labels[:, None].float()
    ignored = ids == ignore
    highest = _highest(torch.where(ignored, -torch.inf, ids))
    lowest = -_highest(torch.where(ignored, -torch.inf, -ids))
    return (highest > lowest)[:, 0]


def _highest(values: Tensor) -> Tensor:
    """The largest value around each pixel, along one axis and then along the other, which is quicker than a square window."""
    size = 2 * REACH + 1
    return F.max_pool2d(F.max_pool2d(values, (1, size), 1, (0, REACH)), (size, 1), 1, (REACH, 0))
