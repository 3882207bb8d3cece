"""Label maps and a map of one channel -> STDC's detail loss: the network learns where labels change (arXiv 2104.13188, section 3.3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: How much a boundary at each stride counts. A pixel is detail if its sum is above `_THRESHOLD`: tenths in the article, whole here so
#: that the comparison is exact. A boundary at stride 4 alone lies at the threshold, not above it, as in the official code.
_STRIDES = {1: 6, 2: 3, 4: 1}
_THRESHOLD = 1
#: The Laplacian reads the classes' numbers, so what is ignored needs one: the same for every dataset, above all classes.
_IGNORED = 255.0


def detail_target(labels: Tensor, ignore: int) -> Tensor:
    """Labels (N, H, W) -> (N, 1, H, W) float32: 1 where a Laplacian of the classes' numbers is positive, at stride 1 or 2, else 0."""
    numbers = torch.where(labels == ignore, _IGNORED, labels.float())[:, None]
    kernel = numbers.new_full((1, 1, 3, 3), -1.0)
    kernel[0, 0, 1, 1] = 8.0
    total = torch.zeros_like(numbers)
    for stride, share in _STRIDES.items():
        edges = (F.conv2d(numbers, kernel, stride=stride, padding=1) > 0).float()
        total += share * F.interpolate(edges, labels.shape[1:], mode="nearest")
    return (total > _THRESHOLD).float()


def detail_losses(logits: Tensor, labels: Tensor, ignore: int) -> tuple[Tensor, Tensor]:
    """Logits (N, 1, h, w) and labels (N, H, W) -> binary cross-entropy and dice loss of the logits at the labels' size."""
    target = detail_target(labels, ignore)
    full = F.interpolate(logits.float(), labels.shape[1:], mode="bilinear", align_corners=True)
    return F.binary_cross_entropy_with_logits(full, target), dice_loss(full.sigmoid(), target)


def dice_loss(shares: Tensor, target: Tensor) -> Tensor:
    """Probabilities and a target of one shape -> 1 - Dice's overlap, the mean over the images; 1 is added above and below the line."""
    shares, target = shares.flatten(1), target.flatten(1)
    overlap = (shares * target).sum(1)
    return (1 - (2 * overlap + 1) / (shares.sum(1) + target.sum(1) + 1)).mean()
