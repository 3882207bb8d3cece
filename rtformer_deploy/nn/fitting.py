"""Checks that weights from elsewhere fit a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from . import build_network
from .weights import AUX, StateDict, check_values, load_into


def count_fitting(weights: Mapping[str, Tensor], arch: Mapping[str, Any], classes: int, source: str) -> int:
    """Loads weights into a network -> how many parameters it deploys, without the auxiliary head and running statistics.

    Raises WeightsError, which lists every key that does not fit. `source` names the weights.
    """
    network = build_network(arch, classes)
    load_into(network, weights, source)
    return sum(value.numel() for key, value in network.named_parameters() if not key.startswith(AUX))


def to_store(weights: Mapping[str, Tensor], half: bool, source: str) -> StateDict:
    """Weights in the types for a file: FP64 becomes FP32; with `half` every float becomes FP16.

    Raises WeightsError if a value is too large for FP16; `source` names the weights.
    """
    stored = {key: _stored(value, half) for key, value in weights.items()}
    if half:
        check_values(stored, f"{source}, rounded to FP16,")
    return stored


def _stored(value: Tensor, half: bool) -> Tensor:
    if half and value.is_floating_point():
        return value.half()
    return value.float() if value.dtype == torch.float64 else value
