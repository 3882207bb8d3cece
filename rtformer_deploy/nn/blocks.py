"""Blocks that networks share: convolutions, residual stages, pyramid pooling, heads. Each takes its normalisation.

No operation works in place, because several layers may read a block's output.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import resize_to

#: Makes a normalisation of a number of channels, such as nn.BatchNorm2d.
Norm = Callable[[int], nn.Module]


class SameConv2d(nn.Conv2d):
    """A convolution that pads as Paddle's and TensorFlow's "same": ceil(H / stride) rows, and what is odd goes right and below."""

    def forward(self, input: Tensor) -> Tensor:
        rows, columns = (_same(input.shape[axis], self.kernel_size[axis - 2], self.stride[axis - 2]) for axis in (2, 3))
        return super().forward(F.pad(input, (*columns, *rows)))


def _same(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """The padding before and behind an axis."""
    whole = max((-(-length // stride) - 1) * stride + kernel - length, 0)
    return whole // 2, whole - whole // 2


def conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=bias)


def conv_norm(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, *, norm: Norm) -> list[nn.Module]:
    return [conv(inputs, outputs, kernel, stride), norm(outputs)]


def norm_relu_conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, *, norm: Norm) -> list[nn.Module]:
    return [norm(inputs), nn.ReLU(), conv(inputs, outputs, kernel, stride)]


def stem(channels: int, *, norm: Norm) -> nn.Sequential:
    """Normalised RGB (N, 3, H, W) -> (N, channels, H/4, W/4)."""
    first, second = conv(3, channels, 3, 2, bias=True), conv(channels, channels, 3, 2, bias=True)
    return nn.Sequential(first, norm(channels), nn.ReLU(), second, norm(channels), nn.ReLU())


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; without `last_relu` the next layer applies the last ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, *, norm: Norm, last_relu: bool = True) -> None:
        super().__init__()
        self.conv1 = conv(inputs, outputs, 3, stride)
        self.bn1 = norm(outputs)
        self.conv2 = conv(outputs, outputs, 3)
        self.bn2 = norm(outputs)
        changes = stride != 1 or inputs != outputs
        self.downsample = nn.Sequential(*conv_norm(inputs, outputs, 1, stride, norm=norm)) if changes else None
        self.last_relu = last_relu

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        out = out + (x if self.downsample is None else self.downsample(x))
        return F.relu(out) if self.last_relu else out


def stage(inputs: int, outputs: int, stride: int = 1, *, norm: Norm) -> nn.Sequential:
    """Two basic blocks; the last one leaves its ReLU to the next layer."""
    first, second = BasicBlock(inputs, outputs, stride, norm=norm), BasicBlock(outputs, outputs, norm=norm, last_relu=False)
    return nn.Sequential(first, second)


class DAPPM(nn.Module):
    """Deep aggregation pyramid pooling (arXiv 2101.06085): five views of the low resolution, each added to the one before.

    `count_padding` False leaves the padding out of the pools' means.
    """

    def __init__(self, inputs: int, inner: int, outputs: int, *, norm: Norm, count_padding: bool = True) -> None:
        super().__init__()

        def scale(*pool: nn.Module) -> nn.Sequential:
            return nn.Sequential(*pool, *norm_relu_conv(inputs, inner, norm=norm))

        def process() -> nn.Sequential:
            return nn.Sequential(*norm_relu_conv(inner, inner, 3, norm=norm))

        self.scale0 = scale()
        self.scale1 = scale(nn.AvgPool2d(5, 2, 2, count_include_pad=count_padding))
        self.scale2 = scale(nn.AvgPool2d(9, 4, 4, count_include_pad=count_padding))
        self.scale3 = scale(nn.AvgPool2d(17, 8, 8, count_include_pad=count_padding))
        self.scale4 = scale(nn.AdaptiveAvgPool2d(1))
        self.process1, self.process2, self.process3, self.process4 = process(), process(), process(), process()
        self.compression = nn.Sequential(*norm_relu_conv(inner * 5, outputs, norm=norm))
        self.shortcut = nn.Sequential(*norm_relu_conv(inputs, outputs, norm=norm))

    def forward(self, x: Tensor) -> Tensor:
        views = [self.scale0(x)]
        scales = (self.scale1, self.scale2, self.scale3, self.scale4)
        processes = (self.process1, self.process2, self.process3, self.process4)
        for scale, process in zip(scales, processes, strict=True):
            views.append(process(resize_to(scale(x), x) + views[-1]))
        out: Tensor = self.compression(torch.cat(views, 1)) + self.shortcut(x)
        return out


class SegHead(nn.Module):
    """(N, in, h, w) -> (N, classes, h, w) logits."""

    def __init__(self, inputs: int, inner: int, classes: int, *, norm: Norm) -> None:
        super().__init__()
        self.bn1 = norm(inputs)
        self.conv1 = conv(inputs, inner, 3)
        self.bn2 = norm(inner)
        self.conv2 = conv(inner, classes, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x))))))
        return out
