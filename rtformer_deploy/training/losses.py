"""Low-resolution logits and label maps -> the training loss."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Loss:
    """Cross-entropy of the logits, interpolated to the labels' size; with `ohem`, of the hard pixels only.

    `ohem` keeps the pixels whose true class has a probability below it, and at least a sixteenth of the scored ones (online hard
    example mining, arXiv 1604.03540, as segmentation uses it). `weights` is one weight a class. `corners`: the logits are interpolated
    from corner to corner, as a recipe's `resize_corners` says.
    """

    ignore: int
    weights: Tensor | None = None
    ohem: float | None = None
    aux: float = 0.4
    corners: bool = False

    def __call__(self, logits: Tensor, aux: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits and auxiliary logits (N, C, h, w) and labels (N, H, W) -> (main + aux share, main, auxiliary) loss."""
        main, extra = self.one(logits, labels), self.one(aux, labels)
        return main + self.aux * extra, main, extra

    def one(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of one map of logits over the scored pixels."""
        scored = labels != self.ignore
        if not scored.any():  # a mean over nothing would be NaN, for good
            return logits.sum() * 0.0
        full = F.interpolate(logits.float(), labels.shape[1:], mode="bilinear", align_corners=self.corners)
        if self.ohem is None:
            return F.cross_entropy(full, labels, self.weights, ignore_index=self.ignore)
        losses = F.cross_entropy(full, labels, ignore_index=self.ignore, reduction="none")[scored]
        hard = losses >= self._bound(losses.detach())
        if self.weights is None:
            return losses[hard].mean()
        weights = self.weights[labels[scored]][hard]
        return (losses[hard] * weights).sum() / weights.sum()

    def _bound(self, losses: Tensor) -> float:
        """The least loss of a hard pixel: that of the probability `ohem`, or lower so that at least a sixteenth of the pixels are hard."""
        assert self.ohem is not None
        count = max(1, losses.numel() // 16)
        return min(-math.log(self.ohem), float(losses.kthvalue(losses.numel() - count + 1).values))


def class_weights(shares: NDArray[np.float64], offset: float) -> Tensor:
    """Each class's share of the pixels -> 1 / ln(offset + share), scaled to a mean of one (ENet's weighting, arXiv 1606.02147).

    ENet's offset is 1.02; a larger one weighs more evenly.
    """
    weights = 1 / np.log(offset + shares)
    return torch.tensor(weights / weights.mean(), dtype=torch.float32)
