"""Checks that weights from elsewhere fit a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from . import architecture_row, build_network
from .architecture import StateDict
from .foreign import Translated
from .weights import check_values, load_into


def count_fitting(weights: Mapping[str, Tensor] | Translated, arch: Mapping[str, Any], classes: int, source: str) -> int:
    """Loads weights into a network -> how many parameters it deploys, without what only training uses and without running statistics.

    Raises WeightsError, which lists every key that does not fit. `source` names the weights.
    """
    network, row = build_network(arch, classes), architecture_row(arch)
    load_into(network, weights, source)
    return sum(value.numel() for key, value in network.named_parameters() if not row.is_for_training(key))


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
