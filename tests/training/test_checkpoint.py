"""A training run's checkpoint: back with the bits that were saved; anything else is one message."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from rtformer_deploy.errors import WeightsError
from rtformer_deploy.training.checkpoint import KEY, TrainingState, restore, save
from rtformer_deploy.training.ema import Average


def state(seed: int = 0, steps: int = 2) -> TrainingState:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    made = TrainingState(network, torch.optim.AdamW(network.parameters()), Average(network, 0.9), steps)
    for step in range(steps):
        network(torch.randn(2, 3, 8, 8)).sum().backward()
        made.optimizer.step()
        made.average.update(network, step)
    return made


def tensors(path: Path) -> dict[str, Tensor]:
    return safetensors.torch.load_file(path)


def rewrite(path: Path, changed: dict[str, Tensor], meta: object = None) -> None:
    text = meta if isinstance(meta, str) else json.dumps({"step": 2, "run": {}} if meta is None else meta)
    safetensors.torch.save_file(changed, path, {KEY: text})


@pytest.mark.parametrize("steps", [0, 2])
def test_what_is_saved_comes_back(tmp_path: Path, steps: int) -> None:
    path = tmp_path / "a.safetensors"
    save(state(0, steps), {"seed": 1}, path)
    other = state(1, 0)
    assert restore(other, path) == {"seed": 1}
    assert other.step == steps
    save(other, {"seed": 1}, tmp_path / "b.safetensors")
    one, two = tensors(path), tensors(tmp_path / "b.safetensors")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize(
    "meta",
    [
        [],
        {"run": {}},
        {"step": "2", "run": {}},
        {"step": -1, "run": {}},
        {"step": True, "run": {}},
        {"step": 1, "run": []},
        "[" * 100_000,
        "x",
    ],
)
def test_metadata_of_another_form_is_one_message(tmp_path: Path, meta: object) -> None:
    path = tmp_path / "a.safetensors"
    rewrite(path, {"a": torch.ones(1)}, meta)
    with pytest.raises(WeightsError, match="is not a checkpoint of a training run") as error:
        restore(state(), path)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("network/0.weight", None, r"it has no network/0\.weight"),
        ("average/0.weight", None, r"it has no average/0\.weight"),
        ("optimizer/exp_avg/0.weight", None, r"it has no optimizer/exp_avg/0\.weight"),
        ("network/0.weight", torch.ones(4, 3, 3, 4), "size mismatch|Error"),
        ("average/0.weight", torch.ones(1), r"a tensor of shape \[1\] for one of \[4, 3, 3, 3\]"),
        ("optimizer/exp_avg/0.weight", torch.ones(1), r"a tensor of shape \[1\] for one of \[4, 3, 3, 3\]"),
        ("optimizer/step/0.weight", torch.ones(1), r"a tensor of shape \[1\] for one of \[\]"),
        ("network/0.weight", torch.full((4, 3, 3, 3), float("nan")), "not finite numbers"),
        ("network/0.weight", torch.ones(4, 3, 3, 3, dtype=torch.bool), "boolean"),
    ],
)
def test_tensors_of_another_form_are_one_message(tmp_path: Path, name: str, value: Tensor | None, message: str) -> None:
    path = tmp_path / "a.safetensors"
    save(state(), {}, path)
    changed = {key: tensor for key, tensor in tensors(path).items() if key != name}
    rewrite(path, changed if value is None else changed | {name: value})
    with pytest.raises(WeightsError, match=message):
        restore(state(), path)
