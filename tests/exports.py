"""Exports that several tests share, made once a run: PyTorch's exporter takes seconds."""

from __future__ import annotations

import functools
from typing import Literal

import torch

from rtformer_deploy.export.weights_choice import Choice, choose_network
from rtformer_deploy.pipeline import Exported, export_model

Head = Literal["lowres", "logits", "labels"]


@functools.cache
def network(variant: str = "slim", seed: int = 0) -> Choice:
    return choose_network(recipe=f"rtformer-{variant}-cityscapes", random_seed=seed)


@functools.cache
def exported(
    variant: str = "slim", size: tuple[int, int] = (128, 256), batch: int | str = 1, head: Head = "lowres", opset: int = 20
) -> Exported:
    """A seeded random network, exported and checked; callers must not change the model."""
    torch.set_num_threads(2)
    choice = network(variant)
    return export_model(choice.network, choice.recipe.spec(size=size, batch=batch, head=head, sha256=choice.sha256), opset)
