"""DDRNet and STDC in training: every part of the loss is in the log, the loss falls, a killed run ends with the bits of an unbroken one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import hide
from safetensors.numpy import load_file
from small_training import write_dataset

from rtformer_deploy.commands.train import train
from rtformer_deploy.errors import UsageError
from rtformer_deploy.formats.recipe import Recipe, load_labels
from rtformer_deploy.nn import architecture_row, build_network
from rtformer_deploy.nn.weights import load_into, load_weights
from rtformer_deploy.training.options import TrainOptions

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "ddrnet": {"name": "ddrnet", "planes": 8, "spp_planes": 8, "head_planes": 8},
    "stdc": {"name": "stdc", "base_channels": 8, "blocks": [1, 1, 1]},
}
PARTS = {"ddrnet": ["main", "aux"], "stdc": ["main", "context8", "context16", "detail_bce", "detail_dice"]}
WEIGHTS = {"ddrnet": 0.4, "stdc": 1.0}
NAMES = pytest.mark.parametrize("name", ARCHITECTURES)


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    hide(monkeypatch, "matplotlib")  # the picture of the log is the same for every network, and slow
    return write_dataset(tmp_path / "data", frames=4)


def recipe(name: str, dataset: Path) -> Recipe:
    return Recipe("small", ARCHITECTURES[name], str(dataset), load_labels(str(dataset)), (48, 64))


def options(dataset: Path, output: Path, **changes: Any) -> TrainOptions:
    values: dict[str, Any] = {"steps": 2, "batch": 2, "crop": (32, 32), "warmup": 1, "threads": 1, "evaluate_every": 100, "log_every": 1}
    return TrainOptions(root=dataset.parent, output=output, **(values | changes))


def steps_of(folder: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [record for record in records if record["kind"] == "step"]


@NAMES
def test_the_loss_falls_and_the_log_names_its_parts(name: str, dataset: Path, tmp_path: Path) -> None:
    run = options(dataset, tmp_path / "run", steps=10, rate=1e-2, colour=0.1, scale=(1.0, 1.0), seed=1)
    train(recipe(name, dataset), run)
    steps = steps_of(run.output)
    for step in steps:
        main_loss, *others = (step[part] for part in PARTS[name])
        assert step["loss"] == pytest.approx(main_loss + WEIGHTS[name] * sum(others), rel=1e-4)
    keys = list(steps[0])
    assert keys[keys.index("loss") : keys.index("gradient")] == ["loss", *PARTS[name]]
    for part in ("loss", *PARTS[name]):
        first, last = (sum(step[part] for step in some) / 3 for some in (steps[:3], steps[-3:]))
        assert last < 0.95 * first, part


@NAMES
def test_a_killed_run_ends_with_the_bits_of_an_unbroken_one(name: str, dataset: Path, tmp_path: Path) -> None:
    whole, broken = options(dataset, tmp_path / "whole"), options(dataset, tmp_path / "broken")
    train(recipe(name, dataset), whole)
    steps = iter(range(1, 100))
    assert train(recipe(name, dataset), broken, stop=lambda: next(steps) == 1) == {"kind": "stopped", "step": 1}
    train(recipe(name, dataset), broken, resume=True)
    for file in ("checkpoint.safetensors", "small.safetensors"):
        one, other = load_file(whole.output / file), load_file(broken.output / file)
        assert one.keys() == other.keys()
        assert [key for key in one if one[key].tobytes() != other[key].tobytes()] == []
    shipped = load_weights(whole.output / "small.safetensors")
    load_into(build_network(ARCHITECTURES[name], 3, aux=False), shipped, "the shipped weights")
    assert not any(architecture_row(ARCHITECTURES[name]).is_for_training(key) for key in shipped)


def test_the_option_weighs_every_auxiliary_loss_and_is_kept(dataset: Path, tmp_path: Path) -> None:
    run = options(dataset, tmp_path / "run", steps=1, aux=0.25)
    train(recipe("stdc", dataset), run)
    (step,) = steps_of(run.output)
    main_loss, *others = (step[part] for part in PARTS["stdc"])
    assert step["loss"] == pytest.approx(main_loss + 0.25 * sum(others), rel=1e-4)
    with pytest.raises(UsageError, match=r"aux was 0\.25, is 1\.0"):
        train(recipe("stdc", dataset), options(dataset, tmp_path / "run", steps=2), resume=True)


def test_training_begins_with_another_projects_checkpoint(dataset: Path, tmp_path: Path) -> None:
    """Keys as its data parallel training wrote them; the heads are of other classes and stay fresh."""
    torch.manual_seed(1)
    source = build_network(ARCHITECTURES["ddrnet"], 19)
    torch.save({"state_dict": {f"module.model.{key}": value for key, value in source.state_dict().items()}}, tmp_path / "best.pth")
    seen: list[list[str]] = []
    run = options(dataset, tmp_path / "run", steps=1, init=tmp_path / "best.pth")
    train(recipe("ddrnet", dataset), run, watch=lambda record: seen.append(record.get("left_out", [])))
    assert sorted(line.split(":")[0] for line in seen[0]) == [
        f"{head}.conv2.{kind}" for head in ("final_layer", "seghead_extra") for kind in ("bias", "weight")
    ]
