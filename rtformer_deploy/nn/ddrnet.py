"""DDRNet (Hong et al., arXiv 2101.06085), with the module names and the arithmetic of its official code.

Spatial sizes in the comments are fractions of the input's; p is `planes`. Two branches of the resolutions 1/8 and 1/16 to 1/64
exchange what they found. Several layers read a stage's output, so no operation works in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch.nn.functional as F
from msgspec import Meta
from torch import Tensor, nn

from .architecture import Architecture, Auxiliary
from .blocks import DAPPM, SameConv2d, SegHead, conv, conv_norm, stage, stem
from .ddrnet_keys import translate
from .layers import resize_to

Padding = Literal["both", "same"]


@dataclass(frozen=True, slots=True)
class DDRNetConfig:
    """A recipe's [architecture]: the options of DDRNet, with their bounds.

    `padding` and `count_padding` tell PaddleSeg's network from the official one: it pads the convolution of `down3` as "same" (at
    even sizes right and below only), and its average pools leave the padding out.
    """

    planes: Annotated[int, Meta(ge=4, le=256)] = 32
    spp_planes: Annotated[int, Meta(ge=4, le=1024)] = 128
    head_planes: Annotated[int, Meta(ge=4, le=1024)] = 64
    padding: Padding = "both"
    count_padding: bool = True

    def check(self) -> None:
        """Every combination is a network."""


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 to twice the channels, and a shortcut; the next layer applies the last ReLU."""

    def __init__(self, inputs: int, inner: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = conv(inputs, inner)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = conv(inner, inner, 3, stride)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = conv(inner, inner * 2)
        self.bn3 = nn.BatchNorm2d(inner * 2)
        self.downsample = nn.Sequential(*conv_norm(inputs, inner * 2, 1, stride, norm=nn.BatchNorm2d))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        joined: Tensor = self.bn3(self.conv3(out)) + self.downsample(x)
        return joined


class DDRNet(nn.Module):
    """Normalised RGB (N, 3, H, W) -> logits (N, classes, H/8, W/8); while training (logits, auxiliary logits), both at 1/8.

    H and W are multiples of 8, because the branches meet there. `aux` keeps the auxiliary head, which only training uses.
    """

    def __init__(
        self,
        classes: int,
        *,
        planes: int = 32,
        spp_planes: int = 128,
        head_planes: int = 64,
        padding: Padding = "both",
        count_padding: bool = True,
        aux: bool = True,
    ) -> None:
        super().__init__()
        p, norm = planes, nn.BatchNorm2d
        self.conv1 = stem(p, norm=norm)
        self.layer1 = stage(p, p, norm=norm)
        self.layer2 = stage(p, p * 2, 2, norm=norm)
        self.layer3 = stage(p * 2, p * 4, 2, norm=norm)
        self.layer4 = stage(p * 4, p * 8, 2, norm=norm)
        self.compression3 = nn.Sequential(*conv_norm(p * 4, p * 2, norm=norm))
        self.compression4 = nn.Sequential(*conv_norm(p * 8, p * 2, norm=norm))
        first = SameConv2d(p * 2, p * 4, 3, 2, bias=False) if padding == "same" else conv(p * 2, p * 4, 3, 2)
        self.down3 = nn.Sequential(first, norm(p * 4))
        self.down4 = nn.Sequential(*conv_norm(p * 2, p * 4, 3, 2, norm=norm), nn.ReLU(), *conv_norm(p * 4, p * 8, 3, 2, norm=norm))
        self.layer3_ = stage(p * 2, p * 2, norm=norm)
        self.layer4_ = stage(p * 2, p * 2, norm=norm)
        self.layer5_ = nn.Sequential(Bottleneck(p * 2, p * 2))
        self.layer5 = nn.Sequential(Bottleneck(p * 8, p * 8, 2))
        self.spp = DAPPM(p * 16, spp_planes, p * 4, norm=norm, count_padding=count_padding)
        self.seghead_extra = SegHead(p * 2, head_planes, classes, norm=norm) if aux else None
        self.final_layer = SegHead(p * 4, head_planes, classes, norm=norm)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.layer1(self.conv1(x))  # (N, p, 1/4)
        x2 = self.layer2(F.relu(x))  # (N, 2p, 1/8)
        low = self.layer3(F.relu(x2))  # (N, 4p, 1/16)
        high = self.layer3_(F.relu(x2))  # (N, 2p, 1/8)
        low, high3 = low + self.down3(F.relu(high)), high + resize_to(self.compression3(F.relu(low)), high)
        low = self.layer4(F.relu(low))  # (N, 8p, 1/32)
        high = self.layer4_(F.relu(high3))  # (N, 2p, 1/8)
        low, high = low + self.down4(F.relu(high)), high + resize_to(self.compression4(F.relu(low)), high)
        high = self.layer5_(F.relu(high))  # (N, 4p, 1/8)
        low = self.spp(self.layer5(F.relu(low)))  # (N, 4p, 1/64)
        logits: Tensor = self.final_layer(resize_to(low, high) + high)
        if self.training and self.seghead_extra is not None:
            return logits, self.seghead_extra(high3)
        return logits


def _initialise(module: nn.Module) -> None:
    """The official initial values: He initialisation for convolutions, from what they give."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


ARCHITECTURE = Architecture(
    name="ddrnet",
    network=DDRNet,
    config=DDRNetConfig,
    classifier="final_layer.conv2.weight",
    auxiliaries=(Auxiliary("aux", weight=0.4),),
    aux=("seghead_extra.",),
    step=8,
    translate=translate,
)
