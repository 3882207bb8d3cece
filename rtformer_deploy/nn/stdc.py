"""STDC-Seg (Fan et al., arXiv 2104.13188), with the module names and the arithmetic of its official code.

Spatial sizes in the comments are fractions of the input's, rounded up; b is `base_channels`. No operation works in place.

The official code trains and evaluates with a normalisation that scales by |weight| + epsilon (InPlaceABNSync). Here all are plain
batch norms, as in the official TensorRT model: such a checkpoint gets |weight| + 1e-5 when it is imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from msgspec import Meta
from torch import Tensor, nn

from .architecture import Architecture, Auxiliary
from .blocks import conv
from .stdc_keys import translate, with_inplace_norms

Count = Annotated[int, Meta(ge=1, le=64)]


@dataclass(frozen=True, slots=True)
class STDCConfig:
    """A recipe's [architecture]: the options of STDC-Seg, with their bounds.

    `blocks` counts the blocks of the resolutions 1/8, 1/16 and 1/32: 2, 2, 2 is STDC1 and 4, 5, 3 is STDC2. `head_bias` and
    `count_padding` tell PaddleSeg's network from the official one: every convolution behind its backbone has a bias, and its average
    pools leave the padding out.
    """

    base_channels: Annotated[int, Meta(ge=8, le=256, multiple_of=8)] = 64
    blocks: tuple[Count, Count, Count] = (2, 2, 2)
    head_bias: bool = False
    count_padding: bool = True

    def check(self) -> None:
        """Every combination is a network."""


class ConvX(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, *, bias: bool = False) -> None:
        super().__init__()
        self.conv = conv(inputs, outputs, kernel, stride, bias)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class CatBottleneck(nn.Module):
    """(N, in, H, W) -> (N, out, H, W), or half of H and W with stride 2: four convolutions in a row, whose outputs are joined.

    The short-term dense concatenation: a half, a quarter and two eighths of the channels, which see more and more of the image.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, *, count_padding: bool) -> None:
        super().__init__()
        half = outputs // 2
        widths = ((inputs, half, 1), (half, half // 2, 3), (half // 2, half // 4, 3), (half // 4, half // 4, 3))
        self.conv_list = nn.ModuleList(ConvX(*width) for width in widths)
        self.avd_layer: nn.Module | None = None
        if stride == 2:
            depthwise = nn.Conv2d(half, half, 3, 2, 1, groups=half, bias=False)
            self.avd_layer = nn.Sequential(depthwise, nn.BatchNorm2d(half))
            self.skip = nn.AvgPool2d(3, 2, 1, count_include_pad=count_padding)

    def forward(self, x: Tensor) -> Tensor:
        first, *others = self.conv_list
        wide = first(x)
        out, outputs = wide, [wide]
        if self.avd_layer is not None:
            out, outputs = self.avd_layer(wide), [self.skip(wide)]
        for each in others:
            out = each(out)
            outputs.append(out)
        return torch.cat(outputs, 1)


class Backbone(nn.Module):
    """Normalised RGB (N, 3, H, W) -> b/2 (1/2), b (1/4), 4b (1/8), 8b (1/16) and 16b channels (1/32)."""

    def __init__(self, base: int, blocks: Sequence[int], *, count_padding: bool) -> None:
        super().__init__()
        features: list[nn.Module] = [ConvX(3, base // 2, 3, 2), ConvX(base // 2, base, 3, 2)]
        self.ends = [0, 1]
        inputs = base
        for level, count in enumerate(blocks):
            outputs = base * 4 << level
            for number in range(count):
                features.append(CatBottleneck(inputs, outputs, 1 if number else 2, count_padding=count_padding))
                inputs = outputs
            self.ends.append(len(features) - 1)
        self.features = nn.Sequential(*features)

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs = []
        for number, feature in enumerate(self.features):
            x = feature(x)
            if number in self.ends:
                outputs.append(x)
        return outputs


class AttentionRefinement(nn.Module):
    """(N, in, h, w) -> (N, out, h, w): a convolution, each channel weighed by what its mean over the image says."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool) -> None:
        super().__init__()
        self.conv = ConvX(inputs, outputs, bias=bias)
        self.conv_atten = conv(outputs, outputs, bias=bias)
        self.bn_atten = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        weights = self.bn_atten(self.conv_atten(global_mean(x)))  # (N, out, 1, 1), without a ReLU
        return x * torch.sigmoid(weights)


class ContextPath(nn.Module):
    """Normalised RGB (N, 3, H, W) -> the backbone's five outputs, and the context (N, 2b) for 1/16 and for 1/8."""

    def __init__(self, base: int, blocks: Sequence[int], *, bias: bool, count_padding: bool) -> None:
        super().__init__()
        inner = base * 2
        self.backbone = Backbone(base, blocks, count_padding=count_padding)
        self.arm16 = AttentionRefinement(base * 8, inner, bias=bias)
        self.arm32 = AttentionRefinement(base * 16, inner, bias=bias)
        self.conv_head32 = ConvX(inner, inner, bias=bias)
        self.conv_head16 = ConvX(inner, inner, bias=bias)
        self.conv_avg = ConvX(base * 16, inner, 1, bias=bias)

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        features = self.backbone(x)
        *_, x8, x16, x32 = features
        context = self.arm32(x32) + self.conv_avg(global_mean(x32))  # (N, 2b, 1/32)
        context16 = self.conv_head32(nearest(context, x16))
        context8 = self.conv_head16(nearest(self.arm16(x16) + context16, x8))
        return features, context16, context8


class FeatureFusion(nn.Module):
    """Backbone (N, 4b, 1/8) and context (N, 2b, 1/8) -> (N, 4b, 1/8): joined, each channel weighed by its mean over the image."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool) -> None:
        super().__init__()
        self.convblk = ConvX(inputs, outputs, 1, bias=bias)
        self.conv1 = conv(outputs, outputs // 4, bias=bias)
        self.conv2 = conv(outputs // 4, outputs, bias=bias)

    def forward(self, features: Tensor, context: Tensor) -> Tensor:
        x = self.convblk(torch.cat([features, context], 1))
        weights = self.conv2(F.relu(self.conv1(global_mean(x))))  # (N, 4b, 1, 1)
        out: Tensor = x * torch.sigmoid(weights) + x
        return out


class SegHead(nn.Module):
    """(N, in, h, w) -> (N, classes, h, w) logits."""

    def __init__(self, inputs: int, inner: int, classes: int, *, bias: bool) -> None:
        super().__init__()
        self.conv = ConvX(inputs, inner, bias=bias)
        self.conv_out = conv(inner, classes, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv_out(self.conv(x))
        return out


class STDC(nn.Module):
    """Normalised RGB (N, 3, H, W) -> logits (N, classes, 1/8); while training (logits, context logits at 1/8 and at 1/16, detail at 1/8).

    H and W are any from 1 on. `aux` keeps the heads that only training uses. The official code runs four heads for the detail, and its
    published training learns from that of 1/8 alone.
    """

    def __init__(
        self,
        classes: int,
        *,
        base_channels: int = 64,
        blocks: Sequence[int] = (2, 2, 2),
        head_bias: bool = False,
        count_padding: bool = True,
        aux: bool = True,
    ) -> None:
        super().__init__()
        b, bias = base_channels, head_bias
        self.cp = ContextPath(b, blocks, bias=bias, count_padding=count_padding)
        self.ffm = FeatureFusion(b * 6, b * 4, bias=bias)
        self.conv_out = SegHead(b * 4, b * 4, classes, bias=bias)
        self.has_aux = aux
        if aux:
            self.conv_out16 = SegHead(b * 2, b, classes, bias=bias)  # of the context at 1/8
            self.conv_out32 = SegHead(b * 2, b, classes, bias=bias)  # of the context at 1/16
            self.conv_out_sp16 = SegHead(b * 8, b, 1, bias=bias)
            self.conv_out_sp8 = SegHead(b * 4, b, 1, bias=bias)
            self.conv_out_sp4 = SegHead(b, b, 1, bias=bias)
            self.conv_out_sp2 = SegHead(b // 2, b, 1, bias=bias)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor, Tensor]:
        features, context16, context8 = self.cp(x)
        x8 = features[2]
        logits: Tensor = self.conv_out(self.ffm(x8, context8))
        if self.training and self.has_aux:
            self._move_statistics(features)
            return logits, self.conv_out16(context8), self.conv_out32(context16), self.conv_out_sp8(x8)
        return logits

    @torch.no_grad()
    def _move_statistics(self, features: Sequence[Tensor]) -> None:
        """Runs the heads that learn nothing, so that their running statistics are the official code's."""
        x2, x4, _, x16, _ = features
        for head, x in ((self.conv_out_sp2, x2), (self.conv_out_sp4, x4), (self.conv_out_sp16, x16)):
            head(x)


def global_mean(x: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, C, 1, 1): a mean, which exports as one node, where a pool would be of one size."""
    return x.mean((2, 3), keepdim=True)


def nearest(x: Tensor, like: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, C, H, W) of `like`: each pixel is the nearest one above and to the left."""
    return F.interpolate(x, size=like.shape[2:], mode="nearest")


def _initialise(module: nn.Module) -> None:
    """The official initial values: He initialisation for convolutions."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, a=1)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


ARCHITECTURE = Architecture(
    name="stdc",
    network=STDC,
    config=STDCConfig,
    classifier="conv_out.conv_out.weight",
    auxiliaries=(Auxiliary("context8"), Auxiliary("context16"), Auxiliary("detail", "boundary")),
    aux=("conv_out16.", "conv_out32.", "conv_out_sp16.", "conv_out_sp8.", "conv_out_sp4.", "conv_out_sp2."),
    translate=translate,
    inplace_norms=with_inplace_norms,
)
