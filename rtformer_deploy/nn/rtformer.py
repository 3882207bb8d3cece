"""RTFormer (Wang et al., NeurIPS 2022, arXiv 2210.07124), with the module names and the arithmetic of PaddleSeg's RTFormer.

Spatial sizes in the comments are fractions of the input's; c is `base_channels`. Several layers read a stage's output, so no
operation works in place.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from msgspec import Meta
from torch import Tensor, nn

from ..formats.documents import DocumentError
from .architecture import Architecture, Auxiliary
from .blocks import DAPPM, BasicBlock, SegHead, conv, norm_relu_conv, stage, stem
from .layers import AdaptiveMaxPool, BatchNorm2d, DropPath, cross_resolution_attention, grouped_double_norm, resize_to

Attention = Literal["gfa", "ea", "mhea"]
Channels = Annotated[int, Meta(ge=4, le=1024)]


@dataclass(frozen=True, slots=True)
class RTFormerConfig:
    """A recipe's [architecture]: the options of RTFormer, with their bounds.

    `aux_context` and `aux_boundary` add heads that only training uses; the official code has neither.
    """

    base_channels: Annotated[int, Meta(ge=4, le=256)] = 32
    head_channels: Channels = 64
    spp_channels: Channels = 128
    heads: Annotated[int, Meta(ge=1, le=64)] = 8
    injection: tuple[bool, bool] = (True, True)
    cross_size: Annotated[int, Meta(ge=1, le=64)] = 12
    drop_path: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    attention: Attention = "gfa"
    aux_context: bool = False
    aux_boundary: bool = False

    def check(self) -> None:
        """Raises DocumentError if the heads do not divide the channels of the low resolution."""
        if self.attention != "ea" and self.base_channels * 4 % self.heads:
            raise DocumentError(f"heads is {self.heads}, which does not divide base_channels * 4 = {self.base_channels * 4}")


#: Normalises and activates first, then convolves. Everything after the residual stages uses this order.
bn_relu_conv = functools.partial(norm_relu_conv, norm=BatchNorm2d)


class MLP(nn.Module):
    """BN, 3x3, exact GELU, 3x3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = BatchNorm2d(channels, eps=1e-6)
        self.conv1 = conv(channels, channels, 3, bias=True)
        self.act = nn.GELU()
        self.conv2 = conv(channels, channels, 3, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv2(self.act(self.conv1(self.norm(x))))
        return out


class LowResolutionAttention(nn.Module):
    """(N, in, H, W) -> (N, out, H, W), or half of H and W if in and out differ: attention to learned keys and values.

    gfa   GPU-friendly attention: one set of keys for all heads, normalised in `heads` groups
    ea    external attention: the same keys and values, normalised over all channels
    mhea  its multi-head form: each head sees its own channels, with its own small keys and values
    """

    def __init__(self, inputs: int, outputs: int, attention: Attention, heads: int) -> None:
        super().__init__()
        self.norm = BatchNorm2d(inputs)
        self.split = heads if attention == "mhea" else 1
        self.groups = 1 if attention == "ea" else heads
        self.stride = 2 if inputs != outputs else 1
        self.k = nn.Parameter(torch.empty(outputs, inputs // self.split, 1, 1))
        self.v = nn.Parameter(torch.empty(outputs, outputs // self.split, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(self.norm(x), self.k, stride=self.stride, groups=self.split)
        return F.conv2d(grouped_double_norm(x, self.groups), self.v, groups=self.split)


class CrossResolutionAttention(nn.Module):
    """High-resolution pixels attend to the tokens pooled from the low resolution; keys and values are arguments."""

    def __init__(self, channels: int, tokens: int) -> None:
        super().__init__()
        self.norm = BatchNorm2d(channels)
        self.scale = tokens**-0.5  # from the token count, not the channels, as in the paper

    def forward(self, x: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return cross_resolution_attention(self.norm(x), key, value, self.scale)


class RTFormerBlock(nn.Module):
    """High (N, ch, 1/8) and low (N, in, 1/16 or 1/32) -> high and low (1/32): low-resolution attention, then cross-resolution.

    With `injection` the high-resolution result is added back to the low resolution.
    """

    def __init__(
        self, high: int, low_in: int, low: int, *, attention: Attention, heads: int, drop_path: float, injection: bool, cross_size: int
    ) -> None:
        super().__init__()
        self.attn_shortcut_l = nn.Sequential(BatchNorm2d(low_in), conv(low_in, low, 1, 2)) if low_in != low else None
        self.attn_l = LowResolutionAttention(low_in, low, attention, heads)
        self.mlp_l = MLP(low)
        self.compression = nn.Sequential(*bn_relu_conv(low, high))
        self.attn_h = CrossResolutionAttention(high, cross_size * cross_size)
        self.mlp_h = MLP(high)
        self.cross_kv = nn.Sequential(BatchNorm2d(low), AdaptiveMaxPool(cross_size), conv(low, 2 * high))
        self.down = nn.Sequential(*bn_relu_conv(high, low // 2, 3, 2), *bn_relu_conv(low // 2, low, 3, 2)) if injection else None
        self.drop_path = DropPath(drop_path)

    def forward(self, high: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
        shortcut = low if self.attn_shortcut_l is None else self.attn_shortcut_l(low)
        low = shortcut + self.drop_path(self.attn_l(low))
        low = low + self.drop_path(self.mlp_l(low))
        high = high + resize_to(self.compression(low), high)
        tokens = self.cross_kv(low).flatten(2)  # (N, 2 ch, T)
        key, value = tokens[:, : high.shape[1]], tokens[:, high.shape[1] :]  # (N, ch, T) each
        high = high + self.drop_path(self.attn_h(high, key.transpose(1, 2), value))
        high = high + self.drop_path(self.mlp_h(high))
        if self.down is not None:
            low = low + self.down(high)
        return high, low


class RTFormer(nn.Module):
    """Normalised RGB (N, 3, H, W) -> logits (N, classes, H/8, W/8); while training (logits, auxiliary logits), both at 1/8.

    `injection` and `cross_size` are part of the published configuration. `cross_size` changes no tensor's shape, so weights do not show it.
    `aux` keeps the auxiliary heads, which only training uses: that of the official code, and with `aux_context` one on the pooled context
    (N, classes, H/32, W/32), with `aux_boundary` one that tells where classes meet (N, 1, H/8, W/8).
    """

    stride = 8

    def __init__(
        self,
        classes: int,
        *,
        base_channels: int = 32,
        head_channels: int = 64,
        spp_channels: int = 128,
        heads: int = 8,
        injection: Sequence[bool] = (True, True),
        cross_size: int = 12,
        drop_path: float = 0.0,
        attention: Attention = "gfa",
        aux_context: bool = False,
        aux_boundary: bool = False,
        aux: bool = True,
    ) -> None:
        super().__init__()
        c = base_channels
        self.conv1 = stem(c, norm=BatchNorm2d)
        self.layer1 = stage(c, c, norm=BatchNorm2d)
        self.layer2 = stage(c, c * 2, 2, norm=BatchNorm2d)
        self.layer3 = stage(c * 2, c * 4, 2, norm=BatchNorm2d)
        self.layer3_ = nn.Sequential(BasicBlock(c * 2, c * 2, norm=BatchNorm2d))
        self.compression3 = nn.Sequential(*bn_relu_conv(c * 4, c * 2))
        block = functools.partial(RTFormerBlock, attention=attention, heads=heads, drop_path=drop_path, cross_size=cross_size)
        self.layer4 = block(c * 2, c * 4, c * 8, injection=injection[0])
        self.layer5 = block(c * 2, c * 8, c * 8, injection=injection[1])
        self.spp = DAPPM(c * 8, spp_channels, c * 2, norm=BatchNorm2d)
        self.seghead = SegHead(c * 4, head_channels * 2, classes, norm=BatchNorm2d)
        head = functools.partial(SegHead, c * 2, head_channels, norm=BatchNorm2d)
        self.seghead_extra = head(classes) if aux else None
        self.seghead_context = head(classes) if aux and aux_context else None
        self.seghead_boundary = head(1) if aux and aux_boundary else None
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        x1 = self.layer1(self.conv1(x))  # (N, c, 1/4)
        x2 = self.layer2(F.relu(x1))  # (N, 2c, 1/8)
        x3 = self.layer3(F.relu(x2))  # (N, 4c, 1/16)
        high = self.layer3_(F.relu(x2 + resize_to(self.compression3(x3), x2)))  # (N, 2c, 1/8)
        x4_high, x4 = self.layer4(F.relu(high), F.relu(x3))  # (N, 2c, 1/8), (N, 8c, 1/32)
        x5_high, x5 = self.layer5(F.relu(x4_high), F.relu(x4))
        pooled = self.spp(x5)  # (N, 2c, 1/32)
        logits: Tensor = self.seghead(torch.cat([x5_high, resize_to(pooled, x5_high)], 1))
        if not self.training or self.seghead_extra is None:
            return logits
        heads = ((self.seghead_extra, high), (self.seghead_context, pooled), (self.seghead_boundary, high))
        return logits, *(head(features) for head, features in heads if head is not None)


def _initialise(module: nn.Module) -> None:
    """PaddleSeg's initial values: He initialisation for convolutions, small normal values for the attention."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, LowResolutionAttention):
        nn.init.normal_(module.k, std=0.001)
        nn.init.normal_(module.v, std=0.001)
    elif isinstance(module, RTFormerBlock):
        projection = module.cross_kv[2]
        assert isinstance(projection, nn.Conv2d)
        nn.init.trunc_normal_(projection.weight, std=0.02)


ARCHITECTURE = Architecture(
    name="rtformer",
    network=RTFormer,
    config=RTFormerConfig,
    classifier="seghead.conv2.weight",
    auxiliaries=(
        Auxiliary("aux", weight=0.4),
        Auxiliary("context", weight=0.4, option="aux_context"),
        Auxiliary("boundary", "boundary", option="aux_boundary"),
    ),
    aux=("seghead_extra.", "seghead_context.", "seghead_boundary."),
    training_only=frozenset({"drop_path", "aux_context", "aux_boundary"}),
    stride=RTFormer.stride,
)
