"""What a network gives while training, and label maps -> the training loss."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..nn.architecture import Auxiliary
from .boundary import near_boundary
from .detail import detail_losses


@dataclass(frozen=True, slots=True)
class Loss:
    """Cross-entropy of the logits, interpolated to the labels' size, and a share of the loss of each auxiliary output.

    `ohem` keeps the pixels whose true class has a probability below it, and at least a sixteenth of the scored ones (online hard
    example mining, arXiv 1604.03540, as segmentation uses it). `weights` is one weight a class; pixels near a boundary of classes count
    1 + `boundary` times as much. `auxiliaries` says what the outputs behind the logits are for: classes have a cross-entropy like the
    logits', boundaries have STDC's detail loss. `corners`: the logits are interpolated from corner to corner.
    """

    ignore: int
    weights: Tensor | None = None
    ohem: float | None = None
    auxiliaries: tuple[Auxiliary, ...] = (Auxiliary("aux", weight=0.4),)
    corners: bool = False
    boundary: float = 0.0

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the loss's parts, in their order."""
        return ("main", *itertools.chain.from_iterable(map(_parts_of, self.auxiliaries)))

    def __call__(self, *outputs_and_labels: Tensor) -> tuple[Tensor, ...]:
        """Logits (N, C, h, w), the auxiliary outputs, and labels (N, H, W) at the end -> the whole loss, then its parts as `names` has
        them, without their weights."""
        logits, *outputs, labels = outputs_and_labels
        total = main = self.one(logits, labels)
        parts = [main]
        for auxiliary, output in zip(self.auxiliaries, outputs, strict=True):
            for part in self._auxiliary(auxiliary, output, labels):
                total = total + auxiliary.weight * part
                parts.append(part)
        return total, *parts

    def _auxiliary(self, auxiliary: Auxiliary, output: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        if auxiliary.predicts == "boundary":
            return detail_losses(output, labels, self.ignore)
        return (self.one(output, labels),)

    def one(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of one map of logits over the scored pixels."""
        scored = labels != self.ignore
        if not scored.any():  # a mean over nothing would be NaN, for good
            return logits.sum() * 0.0
        small = logits.float().contiguous()  # a third quicker on a CPU than from channels-last, both ways
        full = F.interpolate(small, labels.shape[1:], mode="bilinear", align_corners=self.corners)
        if self.ohem is None and not self.boundary:
            return F.cross_entropy(full, labels, self.weights, ignore_index=self.ignore)
        losses = F.cross_entropy(full, labels, ignore_index=self.ignore, reduction="none")[scored]
        weights = self._pixel_weights(labels)[scored]
        if self.ohem is not None:
            hard = losses >= self._bound(losses.detach())
            losses, weights = losses[hard], weights[hard]
        return (losses * weights).sum() / weights.sum()

    def _pixel_weights(self, labels: Tensor) -> Tensor:
        """What each pixel of the labels counts; any number for an ignored one."""
        weights = torch.ones(labels.shape, device=labels.device)
        if self.weights is not None:
            weights = self.weights[labels.clamp(max=len(self.weights) - 1)]
        return weights * (1 + self.boundary * near_boundary(labels, self.ignore)) if self.boundary else weights

    def _bound(self, losses: Tensor) -> float:
        """The least loss of a hard pixel: that of the probability `ohem`, or lower so that at least a sixteenth of the pixels are hard."""
        assert self.ohem is not None
        count = max(1, losses.numel() // 16)
        return min(-math.log(self.ohem), float(losses.kthvalue(losses.numel() - count + 1).values))


def _parts_of(auxiliary: Auxiliary) -> tuple[str, ...]:
    name = auxiliary.name
    return (f"{name}_bce", f"{name}_dice") if auxiliary.predicts == "boundary" else (name,)


def class_weights(shares: NDArray[np.float64], offset: float) -> Tensor:
    """Each class's share of the pixels -> 1 / ln(offset + share), scaled to a mean of one (ENet's weighting, arXiv 1606.02147).

    ENet's offset is 1.02; a larger one weighs more evenly.
    """
    weights = 1 / np.log(offset + shares)
    return torch.tensor(weights / weights.mean(), dtype=torch.float32)
