"""A network of two convolutions that trains and exports in a second, where the docs show RTFormer."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from rtformer_deploy.nn import Architecture, Auxiliary


class Tiny(nn.Module):
    """As little of a network as training and exporting take: an eighth of the size, and a second head while training."""

    stride = 8

    def __init__(self, classes: int, *, channels: int = 8, drop_path: float = 0.0, aux: bool = True) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, channels, 7, 4, 3), nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels, 3, 2, 1)
        )
        self.seghead = nn.ModuleDict({"conv2": nn.Conv2d(channels, classes, 1)})
        self.seghead_extra = nn.Conv2d(channels, classes, 1) if aux else None

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        features = self.stem(x)
        logits: Tensor = self.seghead["conv2"](features)
        return (logits, self.seghead_extra(features)) if self.training and self.seghead_extra is not None else logits


@dataclass(frozen=True, slots=True)
class TinyConfig:
    """What the network takes from a recipe's [architecture], where the page writes RTFormer's."""

    channels: int = 8
    drop_path: float = 0.0

    def check(self) -> None:
        """All of it fits."""


TINY = Architecture(
    name="tiny",
    network=Tiny,
    config=TinyConfig,
    classifier="seghead.conv2.weight",
    auxiliaries=(Auxiliary("aux", weight=0.4),),
    aux=("seghead_extra.",),
)
