"""The average of a network teaches the network: the loss that compares their logits (mean teacher, arXiv 1703.01780)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@torch.no_grad()
def taught(teacher: nn.Module, views: Tensor) -> Tensor:
    """The logits (N, C, h, w) that the averaged network gives for normalised views, as it would be deployed."""
    logits: Tensor = teacher.eval()(views)
    return logits


def distillation_loss(logits: Tensor, teacher: Tensor) -> Tensor:
    """Two maps of logits (N, C, h, w) -> the mean over the pixels of the divergence KL(teacher || network), in nats.

    Every pixel counts, also one whose label is ignored; both stay at the network's stride, where a pixel's class is decided.
    """
    ours, theirs = F.log_softmax(logits.float(), 1), F.log_softmax(teacher.float(), 1)
    return (theirs.exp() * (theirs - ours)).sum(1).mean()
