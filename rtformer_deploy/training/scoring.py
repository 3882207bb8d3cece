"""Scores a network during training: prepares the frames and counts one confusion matrix."""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ..datasets import Dataset
from ..evaluation.metrics import Scores, confusion, scores


class Normalise:
    """Views (N, H, W, 3) uint8 -> (N, 3, H, W) float32 in channels-last layout, normalised with a recipe's mean and std."""

    def __init__(self, mean: tuple[float, float, float], std: tuple[float, float, float], device: torch.device) -> None:
        self.scale = (1 / (255 * torch.tensor(std))).view(1, 3, 1, 1).to(device)
        self.shift = (-torch.tensor(mean) / torch.tensor(std)).view(1, 3, 1, 1).to(device)
        self.device = device

    def __call__(self, views: NDArray[np.uint8]) -> Tensor:
        return torch.from_numpy(views).to(self.device).permute(0, 3, 1, 2).float().mul_(self.scale).add_(self.shift)


@torch.inference_mode()
def score(network: nn.Module, dataset: Dataset, size: tuple[int, int], normalise: Normalise) -> Scores:
    """A network in evaluation mode and a dataset -> its scores, compared at each label's own size."""
    classes = len(dataset.labels.names)
    matrix = np.zeros((classes, classes), np.int64)
    for index in range(len(dataset)):
        frame, label = dataset.load(index)
        if frame.shape[:2] != size:
            frame = np.asarray(cv2.resize(frame, size[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)
        logits = network(normalise(frame[None]))
        full = F.interpolate(logits, label.shape, mode="bilinear", align_corners=False)
        matrix += confusion(label, full.argmax(1)[0].to(torch.uint8).cpu().numpy(), classes, dataset.labels.ignore_index)
    return scores(matrix, dataset.labels.names)


def to_channels_last(network: nn.Module) -> nn.Module:
    """The network with its convolutions laid out channels-last, which is fast on CPUs and tensor cores."""
    for value in network.parameters():
        if value.dim() == 4:
            value.data = value.data.contiguous(memory_format=torch.channels_last)
    return network
