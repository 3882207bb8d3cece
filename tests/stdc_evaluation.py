"""STDC's own evaluation in plain PyTorch, with the tiny network, and its spec as a recipe with `resize_corners` and `scale` gives it."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
import torch.nn.functional as F
from helpers import CLASSES, tiny_spec, tiny_weights
from numpy.typing import NDArray
from torch import Tensor

from rtformer_deploy.formats.recipe import output_spec
from rtformer_deploy.types import Frame, Head, LabelMap, ModelSpec, Resize

SIZE = (64, 96)
SCALE = 0.5
FRAME = (128, 192)
#: What rounding may change in the logits, as a share of the largest: PyTorch keeps places of pixels in float32.
BOUND = 1e-4


class Network(torch.nn.Module):
    """The tiny network: logits at an eighth of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = torch.nn.ParameterList([torch.from_numpy(value) for value in tiny_weights()])

    def forward(self, x: Tensor) -> Tensor:
        for index, weight in enumerate(self.weights):
            x = F.conv2d(x.relu() if index else x, weight, stride=2, padding=1)
        return x


def corner_spec(head: Head = "lowres", size: tuple[int, int] = SIZE, scale: float = SCALE, resize: Resize = "stretch") -> ModelSpec:
    spec = tiny_spec(1, head, size, resize)
    return dataclasses.replace(spec, output=output_spec(head, CLASSES, 1, size, scale=scale), resize_corners=True, scale=scale)


def resized(values: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(values, size, mode="bilinear", align_corners=True)


def normalised(frame: Frame, spec: ModelSpec, dtype: torch.dtype = torch.float32) -> Tensor:
    mean, std = (torch.tensor(each, dtype=dtype).view(1, 3, 1, 1) for each in (spec.mean, spec.std))
    return (torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None].to(dtype) / 255 - mean) / std


@torch.inference_mode()
def official_logits(network: torch.nn.Module, frame: Frame, spec: ModelSpec, seen: tuple[int, int] | None = None) -> Tensor:
    """A frame -> the logits (1, C, H, W) whose argmax STDC's evaluation takes; `seen` is the network's input, `scale` of the frame."""
    height, width = frame.shape[:2]
    seen = seen or (int(height * spec.scale), int(width * spec.scale))
    image = resized(normalised(frame, spec), seen)
    return resized(resized(network(image), seen), (height, width))


def assert_official(labels: LabelMap, logits: Tensor, bound: float = BOUND) -> None:
    """Labels are the argmax, but where the two best logits are so near that a difference within the bound settles them."""
    wanted = logits.argmax(1)[0].numpy()
    assert labels.shape == wanted.shape
    assert len(np.unique(wanted)) > 1
    best = logits.topk(2, dim=1).values[0]
    near = (best[0] - best[1]).numpy() <= 2 * bound * float(logits.abs().max())
    assert near.mean() < 0.05
    assert ((labels == wanted) | near).all()


def largest_difference(one: NDArray[np.float32], other: Tensor) -> float:
    """As a share of the largest value."""
    return float(np.abs(one - other.numpy()).max() / other.abs().max())
