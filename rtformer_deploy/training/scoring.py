"""Scores a network during training: prepares the frames as every command does and counts one confusion matrix."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..datasets import Dataset
from ..evaluation.metrics import Scores, confusion, scores
from ..image.frames import preprocess, upsample_argmax
from ..types import ModelSpec, scaled_size


class Normalise:
    """Views (N, H, W, 3) uint8 -> (N, 3, H, W) float32 in channels-last layout, normalised with a recipe's mean and std."""

    def __init__(self, mean: tuple[float, float, float], std: tuple[float, float, float], device: torch.device) -> None:
        self.scale = (1 / (255 * torch.tensor(std))).view(1, 3, 1, 1).to(device)
        self.shift = (-torch.tensor(mean) / torch.tensor(std)).view(1, 3, 1, 1).to(device)
        self.device = device

    def __call__(self, views: NDArray[np.uint8]) -> Tensor:
        return torch.from_numpy(views).to(self.device).permute(0, 3, 1, 2).float().mul_(self.scale).add_(self.shift)


@torch.inference_mode()
def score(network: nn.Module, dataset: Dataset, spec: ModelSpec, device: torch.device, threads: int | None = None) -> Scores:
    """A network in evaluation mode on `device` and a dataset -> its scores, compared at each label's own size.

    Frames and labels are resized as the spec says and as `evaluate` does with the weights. `threads` None uses every CPU for that.
    """
    classes = len(dataset.labels.names)
    matrix = np.zeros((classes, classes), np.int64)
    for index in range(len(dataset)):
        frame, label = dataset.load(index)
        height, width = frame.shape[:2]
        size = spec.size if spec.scale == 1 else scaled_size((height, width), spec.scale)
        ready = preprocess(frame, size, spec.mean, spec.std, spec.resize, corners=spec.resize_corners, threads=threads)
        image = torch.from_numpy(ready)[None].to(device).contiguous(memory_format=torch.channels_last)
        logits = network(image)[0].float().cpu().numpy()
        predicted = upsample_argmax(logits, (height, width), size, spec.resize, corners=spec.resize_corners, threads=threads)
        matrix += confusion(label, predicted, classes, dataset.labels.ignore_index)
    return scores(matrix, dataset.labels.names)


def to_channels_last(network: nn.Module) -> nn.Module:
    """The network with its convolutions laid out channels-last, which is fast on CPUs and tensor cores."""
    for value in network.parameters():
        if value.dim() == 4:
            value.data = value.data.contiguous(memory_format=torch.channels_last)
    return network
