"""PaddleSeg's DDRNet and STDC in PyTorch: its names, its order of layers, its padding, pools and biases. What its checkpoints are.

Paddle pads "same" as TensorFlow does, and its average pools leave the padding out unless told otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn


def state_of(network: nn.Module) -> dict[str, NDArray[np.float32]]:
    """A network's tensors as Paddle names them."""
    tails = (("running_mean", "_mean"), ("running_var", "_variance"))
    arrays = {}
    for key, value in network.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            front, dot, tail = key.rpartition(".")
            arrays[f"{front}{dot}{dict(tails).get(tail, tail)}"] = value.numpy()
    return arrays


def fill(network: nn.Module, seed: int) -> None:
    """Values that no layer is indifferent to."""
    draw = torch.Generator().manual_seed(seed)
    for key, value in network.state_dict().items():
        if value.is_floating_point():
            noise = torch.randn(value.shape, generator=draw)
            scale = (2 / value[0].numel()) ** 0.5 if value.dim() == 4 else 0.3
            value.copy_(0.5 + noise.abs() if key.endswith("running_var") else noise * scale + (value.dim() == 1 and key.endswith("weight")))


def up(x: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(x, size=list(size), mode="bilinear", align_corners=False)


class ConvNorm(nn.Module):
    """layers.ConvBN and layers.ConvBNReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, *, bias: bool, relu: bool = True, same: bool = False
    ) -> None:
        super().__init__()
        self._conv = nn.Conv2d(inputs, outputs, kernel, stride, 0 if same else kernel // 2, bias=bias)
        self._batch_norm = nn.BatchNorm2d(outputs)
        self.relu, self.same = relu, same

    def forward(self, x: Tensor) -> Tensor:
        if self.same:
            sides = []
            for length in (x.shape[3], x.shape[2]):  # a 3x3 convolution of stride 2: one more pixel is needed, or two
                sides += [1, 1] if length % 2 else [0, 1]
            x = F.pad(x, sides)
        x = self._batch_norm(self._conv(x))
        return F.relu(x) if self.relu else x


class Residual(nn.Module):
    """BasicBlock (wide False) and Bottleneck (wide True) of ddrnet.py."""

    def __init__(self, inputs: int, inner: int, stride: int, *, wide: bool, last_relu: bool) -> None:
        super().__init__()
        if wide:
            self.conv_bn_relu1 = ConvNorm(inputs, inner, 1, bias=False)
            self.conv_bn_relu2 = ConvNorm(inner, inner, 3, stride, bias=False)
        else:
            self.conv_bn_relu = ConvNorm(inputs, inner, 3, stride, bias=False)
        outputs = inner * 2 if wide else inner
        self.conv_bn = ConvNorm(inner, outputs, 1 if wide else 3, bias=False, relu=False)
        changes = stride != 1 or inputs != outputs
        down = [nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)]
        self.downsample = nn.Sequential(*down) if changes else None
        self.wide, self.last_relu = wide, last_relu

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv_bn_relu2(self.conv_bn_relu1(x)) if self.wide else self.conv_bn_relu(x)
        out = self.conv_bn(out) + (x if self.downsample is None else self.downsample(x))
        return F.relu(out) if self.last_relu else out


def basic(inputs: int, inner: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        Residual(inputs, inner, stride, wide=False, last_relu=True), Residual(inner, inner, 1, wide=False, last_relu=False)
    )


def first(*layers: nn.Module, inputs: int, outputs: int, kernel: int = 1) -> nn.Sequential:
    return nn.Sequential(*layers, nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False))


class PaddleDAPPM(nn.Module):
    def __init__(self, inputs: int, inner: int, outputs: int) -> None:
        super().__init__()
        for number, (kernel, stride) in enumerate(((5, 2), (9, 4), (17, 8)), 1):
            pool = nn.AvgPool2d(kernel, stride, kernel // 2, count_include_pad=False)
            self.add_module(f"scale{number}", first(pool, inputs=inputs, outputs=inner))
        self.scale4 = first(nn.AdaptiveAvgPool2d(1), inputs=inputs, outputs=inner)
        self.scale0 = first(inputs=inputs, outputs=inner)
        for number in range(1, 5):
            self.add_module(f"process{number}", first(inputs=inner, outputs=inner, kernel=3))
        self.compression = first(inputs=inner * 5, outputs=outputs)
        self.shortcut = first(inputs=inputs, outputs=outputs)

    def forward(self, x: Tensor) -> Tensor:
        views = [self.scale0(x)]
        for number in range(1, 5):
            scale, process = self.get_submodule(f"scale{number}"), self.get_submodule(f"process{number}")
            views.append(process(up(scale(x), x.shape[2:]) + views[-1]))
        out: Tensor = self.compression(torch.cat(views, 1)) + self.shortcut(x)
        return out


class PaddleHead(nn.Module):
    """DDRNetHead."""

    def __init__(self, inputs: int, inner: int, classes: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv_bn_relu = ConvNorm(inputs, inner, 3, bias=False)
        self.conv = nn.Conv2d(inner, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(self.conv_bn_relu(F.relu(self.bn1(x))))
        return out


class PaddleDDRNet(nn.Module):
    """Normalised RGB -> logits at 1/8, which PaddleSeg enlarges next; `aux` as its enable_auxiliary_loss."""

    def __init__(self, classes: int, planes: int, spp: int, head: int, *, aux: bool) -> None:
        super().__init__()
        p = planes
        self.conv1 = nn.Sequential(ConvNorm(3, p, 3, 2, bias=True), ConvNorm(p, p, 3, 2, bias=True))
        self.layer1, self.layer2 = basic(p, p), basic(p, p * 2, 2)
        self.layer3, self.layer4 = basic(p * 2, p * 4, 2), basic(p * 4, p * 8, 2)
        self.compression3 = ConvNorm(p * 4, p * 2, 1, bias=False, relu=False)
        self.compression4 = ConvNorm(p * 8, p * 2, 1, bias=False, relu=False)
        self.down3 = ConvNorm(p * 2, p * 4, 3, 2, bias=False, relu=False, same=True)
        self.down4 = nn.Sequential(ConvNorm(p * 2, p * 4, 3, 2, bias=False), ConvNorm(p * 4, p * 8, 3, 2, bias=False, relu=False))
        self.layer3_, self.layer4_ = basic(p * 2, p * 2), basic(p * 2, p * 2)
        self.layer5_ = nn.Sequential(Residual(p * 2, p * 2, 1, wide=True, last_relu=False))
        self.layer5 = nn.Sequential(Residual(p * 8, p * 8, 2, wide=True, last_relu=False))
        self.spp = PaddleDAPPM(p * 16, spp, p * 4)
        if aux:
            self.aux_head = PaddleHead(p * 2, head, classes)
        self.head = PaddleHead(p * 4, head, classes)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2] // 8, x.shape[3] // 8
        second = self.layer2(F.relu(self.layer1(self.conv1(x))))
        third, third_ = self.layer3(F.relu(second)), self.layer3_(F.relu(second))
        low = third + self.down3(F.relu(third_))
        high = third_ + up(self.compression3(F.relu(third)), size)
        fourth, fourth_ = self.layer4(F.relu(low)), self.layer4_(F.relu(high))
        low = fourth + self.down4(F.relu(fourth_))
        high = fourth_ + up(self.compression4(F.relu(fourth)), size)
        context = up(self.spp(self.layer5(F.relu(low))), size)
        logits: Tensor = self.head(context + self.layer5_(F.relu(high)))
        return logits


class ConvBNRelu(nn.Module):
    """stdcnet.py's own, with other names and without a bias."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Cat(nn.Module):
    """CatBottleneck."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half, quarter, eighth = outputs // 2, outputs // 4, outputs // 8
        self.conv_list = nn.ModuleList(
            [ConvBNRelu(inputs, half, 1), ConvBNRelu(half, quarter), ConvBNRelu(quarter, eighth), ConvBNRelu(eighth, eighth)]
        )
        if stride == 2:
            self.avd_layer = nn.Sequential(nn.Conv2d(half, half, 3, 2, 1, groups=half, bias=False), nn.BatchNorm2d(half))
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        one = self.conv_list[0](x)
        two = self.conv_list[1](self.avd_layer(one) if self.stride == 2 else one)
        three = self.conv_list[2](two)
        if self.stride == 2:
            one = F.avg_pool2d(one, 3, 2, 1, count_include_pad=False)
        return torch.cat([one, two, three, self.conv_list[3](three)], 1)


class PaddleBackbone(nn.Module):
    def __init__(self, base: int, blocks: Sequence[int]) -> None:
        super().__init__()
        features: list[nn.Module] = [ConvBNRelu(3, base // 2, 3, 2), ConvBNRelu(base // 2, base, 3, 2)]
        width = base
        for level, count in enumerate(blocks):
            for number in range(count):
                features.append(Cat(width, base * 2 ** (level + 2), 1 if number else 2))
                width = base * 2 ** (level + 2)
        self.features = nn.Sequential(*features)
        self.ends = [1 + sum(blocks[: level + 1]) for level in range(3)]

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs = []
        for feature in self.features:
            x = feature(x)
            outputs.append(x)
        return [outputs[end] for end in self.ends]


class Attention(nn.Module):
    """AttentionRefinementModule."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = ConvNorm(inputs, outputs, 3, bias=True)
        self.conv_atten = nn.Conv2d(outputs, outputs, 1)
        self.bn_atten = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * torch.sigmoid(self.bn_atten(self.conv_atten(F.adaptive_avg_pool2d(x, 1))))


class Context(nn.Module):
    """ContextPath."""

    def __init__(self, base: int, blocks: Sequence[int]) -> None:
        super().__init__()
        inner = base * 2
        self.backbone = PaddleBackbone(base, blocks)
        self.arm16, self.arm32 = Attention(base * 8, inner), Attention(base * 16, inner)
        self.conv_head32 = ConvNorm(inner, inner, 3, bias=True)
        self.conv_head16 = ConvNorm(inner, inner, 3, bias=True)
        self.conv_avg = ConvNorm(base * 16, inner, 1, bias=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        eight, sixteen, last = self.backbone(x)
        average = F.interpolate(self.conv_avg(F.adaptive_avg_pool2d(last, 1)), last.shape[2:], mode="nearest")
        lower = self.conv_head32(F.interpolate(self.arm32(last) + average, sixteen.shape[2:], mode="nearest"))
        return eight, self.conv_head16(F.interpolate(self.arm16(sixteen) + lower, eight.shape[2:], mode="nearest"))


class Fusion(nn.Module):
    """FeatureFusionModule."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convblk = ConvNorm(inputs, outputs, 1, bias=True)
        self.conv1 = nn.Conv2d(outputs, outputs // 4, 1)
        self.conv2 = nn.Conv2d(outputs // 4, outputs, 1)

    def forward(self, features: Tensor, context: Tensor) -> Tensor:
        x = self.convblk(torch.cat([features, context], 1))
        return x + x * torch.sigmoid(self.conv2(F.relu(self.conv1(F.adaptive_avg_pool2d(x, 1)))))


class STDCHead(nn.Module):
    """SegHead of stdcseg.py."""

    def __init__(self, inputs: int, inner: int, classes: int) -> None:
        super().__init__()
        self.conv = ConvNorm(inputs, inner, 3, bias=True)
        self.conv_out = nn.Conv2d(inner, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv_out(self.conv(x))
        return out


class PaddleSTDC(nn.Module):
    """Normalised RGB -> logits at 1/8. The auxiliary heads are always there; `before`: two have the names of before November 2021."""

    def __init__(self, classes: int, base: int, blocks: Sequence[int], *, before: bool = False) -> None:
        super().__init__()
        self.cp = Context(base, blocks)
        self.ffm = Fusion(base * 6, base * 4)
        self.conv_out = STDCHead(base * 4, base * 4, classes)
        for number in (16, 32) if before else (8, 16):
            self.add_module(f"conv_out{number}", STDCHead(base * 2, base, classes))
        for number, width in ((16, base * 8), (8, base * 4), (4, base), (2, base // 2)):
            self.add_module(f"conv_out_sp{number}", STDCHead(width, base, 1))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.conv_out(self.ffm(*self.cp(x)))
        return logits
