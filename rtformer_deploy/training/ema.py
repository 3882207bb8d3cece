"""A moving average of a network's weights and running statistics: what is evaluated and shipped."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Average:
    """The exponential moving average of everything in a network's state_dict.

    The decay grows as (1 + step) / (10 + step) up to `decay`, so that early values are soon forgotten.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state: dict[str, Tensor] = {name: value.detach().clone() for name, value in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Moves the average towards the network after step `step`."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        averages, values = [], []
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                averages.append(self.state[name])
                values.append(value)
            else:
                self.state[name].copy_(value)
        torch._foreach_lerp_(averages, values, share)
