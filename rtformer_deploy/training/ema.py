"""A moving average of a network's weights and running statistics: what is evaluated and shipped."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class Average:
    """The exponential moving average of everything in a network's state_dict, in torch's AveragedModel.

    What is ours is the decay: it grows as (1 + step) / (10 + step) up to `decay`, so that early values are soon forgotten, and it is a
    function of the step, so that a checkpoint holds the averages alone.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self._model = AveragedModel(network, multi_avg_fn=self._move, use_buffers=True)

    @property
    def network(self) -> nn.Module:
        """The network that holds the averages."""
        module: nn.Module = self._model.module
        return module

    @property
    def state(self) -> dict[str, Tensor]:
        """The averages themselves, by name."""
        return self.network.state_dict()

    def update(self, network: nn.Module, step: int) -> None:
        """Moves the average towards the network after step `step`; the first step's network is taken as it is."""
        self._model.n_averaged.fill_(step)
        self._model.update_parameters(network)

    @torch.no_grad()
    def _move(self, averages: Sequence[Tensor], values: Sequence[Tensor], count: Tensor | int) -> None:
        """Moves tensors of one type; torch's own rule would round averages of whole numbers, which count batches."""
        step = int(count)
        if averages[0].is_floating_point():
            torch._foreach_lerp_(list(averages), list(values), 1 - min(self.decay, (1 + step) / (10 + step)))
        else:
            torch._foreach_copy_(list(averages), list(values))
