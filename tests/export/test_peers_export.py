"""Exports of small DDRNet and STDC-Seg networks: ONNX Runtime gives what PyTorch gives, and tensors have their modules' names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from rtformer_deploy.formats.recipe import load_recipe
from rtformer_deploy.nn import build_network
from rtformer_deploy.pipeline import Exported, export_model


def exported(arch: dict[str, Any], size: tuple[int, int]) -> tuple[nn.Module, Exported]:
    """A network with weights and statistics of one seeded batch, exported and checked."""
    torch.manual_seed(0)
    network = build_network(arch, 4, aux=False)
    with torch.no_grad():
        network.train()(torch.randn(2, 3, 64, 72))
    recipe = replace(load_recipe("ddrnet23-cityscapes"), arch=arch)
    labels = replace(recipe.labels, names=recipe.labels.names[:4], palette=recipe.labels.palette[:4])
    return network, export_model(network.eval(), replace(recipe, labels=labels).spec(size=size))


def homes(made: Exported) -> set[str]:
    """The modules that the names of the graph's nodes begin with; "network" stands for the whole."""
    return {str(node.name).split("/")[0] for node in made.model.graph} - {"network"}


def operators(made: Exported) -> list[str]:
    return [node.op_type for node in made.model.graph]


def test_ddrnet() -> None:
    arch = {"name": "ddrnet", "planes": 8, "spp_planes": 16, "head_planes": 8, "padding": "same", "count_padding": False}
    network, made = exported(arch, (64, 72))
    assert made.parity.difference <= 1e-5
    assert made.model.graph.name == "ddrnet"
    assert homes(made) <= {name for name, _ in network.named_modules()}
    assert "Pad" not in operators(made)  # one-sided padding is the convolution's own
    (down,) = [node for node in made.model.graph if str(node.name).startswith("down3.")]
    assert list(down.attributes["pads"].as_ints()) == [0, 1, 1, 1]  # 8 rows are even, 9 columns odd


@pytest.mark.parametrize("size", [(37, 53)])
def test_stdc_at_a_size_that_divides_by_nothing(size: tuple[int, int]) -> None:
    network, made = exported({"name": "stdc", "base_channels": 8, "blocks": [1, 1, 1]}, size)
    assert made.parity.difference <= 1e-5
    assert homes(made) <= {name for name, _ in network.named_modules()}
    assert operators(made).count("ReduceMean") == 4  # global means of any size, and not pools of one
    assert made.spec.output.shape == (1, 4, 5, 7)
