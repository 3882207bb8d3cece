"""Layers that networks share: Paddle's BatchNorm, DropPath, exact adaptive max pooling, and the attention operators.

The operators are plain PyTorch in eager mode. While a network is exported they become single nodes of the ONNX domain
`rtformer`, so that every later pass can recognise them; `graph/functions.py` defines the nodes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DOMAIN = "rtformer"

Attributes = dict[str, int | float | str | bool | Sequence[int] | Sequence[float] | Sequence[str] | Sequence[bool]]


class BatchNorm2d(nn.BatchNorm2d):
    """(N, C, H, W) -> the same, normalised; the running statistics move as Paddle's do.

    Paddle's momentum 0.1 weighs the old value, torch's weighs the new one, so it is 0.9 here; and Paddle's running variance is
    the biased one.
    """

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.9) -> None:
        super().__init__(channels, eps=eps, momentum=momentum)

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.running_var is None or self.momentum is None:
            return super().forward(input)
        variance = self.running_var.clone()  # the backward pass keeps the tensor that batch_norm gets, so it gets a copy
        output = F.batch_norm(input, self.running_mean, variance, self.weight, self.bias, True, self.momentum, self.eps)
        count = input.numel() / input.shape[1]
        with torch.no_grad():  # torch used the unbiased variance; undo its factor n / (n - 1)
            self.running_var.mul_((1 - self.momentum) / count).add_(variance, alpha=(count - 1) / count)
        return output


class DropPath(nn.Module):
    """Drops a whole residual branch for a random share of the images while training (stochastic depth, arXiv 1603.09382)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        mask = x.new_empty((x.shape[0], 1, 1, 1)).bernoulli_(keep)
        return x * mask / keep


class AdaptiveMaxPool(nn.Module):
    """(N, C, H, W) -> (N, C, size, size): the largest of each bin; bins overlap if `size` does not divide H or W.

    ONNX has no such operator and a fixed stride is wrong, so the exported node carries the indices of its bins.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_exporting():
            return F.adaptive_max_pool2d(x, (self.size, self.size))
        inputs = (x, _bins(x.shape[2], self.size), _bins(x.shape[3], self.size))
        return _node("AdaptiveMaxPool", inputs, {}, (*x.shape[:2], self.size, self.size))


def _bins(length: int, count: int) -> Tensor:
    """The indices of each of `count` bins along an axis; short bins repeat their last index, which does not change the maximum."""
    bounds = [(index * length // count, -(-(index + 1) * length // count)) for index in range(count)]
    width = max(stop - start for start, stop in bounds)
    return torch.tensor([[min(start + step, stop - 1) for step in range(width)] for start, stop in bounds])


def grouped_double_norm(x: Tensor, groups: int) -> Tensor:
    """(N, C, H, W) -> the same: softmax over the image, then each group of C / groups channels is divided by its sum.

    This is the normalisation of GPU-friendly attention (arXiv 2210.07124, section 3.2). With groups=1 it is external attention's.
    """
    if torch.compiler.is_exporting():
        return _node("GroupedDoubleNorm", (x,), {"groups": groups, "group_size": x.shape[1] // groups}, x.shape)
    grouped = x.reshape(x.shape[0], groups, -1, x.shape[2] * x.shape[3])  # (N, G, C/G, H*W)
    grouped = grouped.softmax(3)
    grouped = grouped / (grouped.sum(2, keepdim=True) + 1e-6)
    return grouped.reshape(x.shape)


def cross_resolution_attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Query (N, C, H, W), key (N, T, C) and value (N, C, T) -> (N, C, H, W): every pixel attends to T tokens.

    It is two matrix products per image, not a grouped convolution with computed weights, so that the batch may be dynamic.
    """
    if torch.compiler.is_exporting():
        return _node("CrossResolutionAttention", (query, key, value), {"scale": scale}, query.shape)
    weights = (key @ query.flatten(2) * scale).softmax(1)  # (N, T, H*W)
    mixed: Tensor = value @ weights
    return mixed.reshape(query.shape)


def _node(name: str, inputs: Sequence[Tensor], attributes: Attributes, shape: Sequence[int | torch.SymInt]) -> Tensor:
    """One node of the `rtformer` domain with an output of `shape` and the first input's type."""
    return torch.onnx.ops.symbolic(f"{DOMAIN}::{name}", inputs, attributes, dtype=inputs[0].dtype, shape=shape, version=1)


def resize_to(x: Tensor, like: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, C, H, W) of `like`: bilinear with half-pixel centres."""
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)
