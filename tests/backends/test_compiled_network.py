"""A network that torch.compile compiles: when, for which batch, and what is said if it cannot."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import CLASSES, frames, tiny_spec

from rtformer_deploy.backends.torch.run import layer_precisions, open_network
from rtformer_deploy.errors import EngineError


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Conv2d(3, CLASSES, 3, 8, 1).eval()


def test_it_is_compiled_when_it_is_opened_and_for_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []

    def compiled(module: torch.nn.Module, **options: Any) -> Any:
        assert options["dynamic"] is False

        def run(images: torch.Tensor) -> Any:
            batches.append(len(images))
            return module(images)

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    frame = frames((64, 96))[0]
    with open_network(network(), tiny_spec("batch"), batch=2, threads=1, compiled=True) as runner:
        assert (batches, runner.batch) == ([2], (2, 2, 2))
        found = runner.logits([frame])
        assert batches == [2, 2]
    with open_network(network(), tiny_spec("batch"), batch=2, threads=1) as plain:
        np.testing.assert_allclose(found, plain.logits([frame]), atol=1e-5)


def test_why_it_cannot_be_compiled_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("No working C++ compiler found\nand more")

    monkeypatch.setattr(torch, "compile", lambda module, **options: failing)
    with pytest.raises(EngineError, match=r"cannot compile the network: No working C\+\+ compiler found\n") as caught:
        open_network(network(), tiny_spec(), compiled=True)
    assert "g++" in str(caught.value)


def test_layers_are_counted_by_the_type_of_their_weights() -> None:
    mixed = torch.nn.Sequential(network(), torch.nn.Linear(2, 2).half(), torch.nn.BatchNorm2d(2))
    assert layer_precisions(mixed) == {"fp32": 1, "fp16": 1}
