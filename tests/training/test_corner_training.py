"""Training with `resize_corners` and `scale`: what a network sees and is scored on is what `evaluate` and STDC's evaluation see."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from helpers import hide
from small_training import small_recipe, write_dataset
from stdc_evaluation import corner_spec, normalised, official_logits, resized

from rtformer_deploy.cli import main
from rtformer_deploy.commands.evaluate import EvaluateRequest, evaluate_file
from rtformer_deploy.commands.train import train
from rtformer_deploy.datasets import open_dataset
from rtformer_deploy.errors import UsageError
from rtformer_deploy.evaluation.metrics import confusion
from rtformer_deploy.export.weights_choice import network_in
from rtformer_deploy.formats.recipe import Recipe
from rtformer_deploy.formats.weights_file import weights_metadata
from rtformer_deploy.nn import build_network
from rtformer_deploy.nn.weights import read_metadata, save_weights
from rtformer_deploy.training.augment import Augmentation, random_view
from rtformer_deploy.training.losses import Loss
from rtformer_deploy.training.options import TrainOptions
from rtformer_deploy.training.scoring import score


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data", frames=1, size=(90, 128))


def corner_recipe(data: Path) -> Recipe:
    return dataclasses.replace(small_recipe(data), size=(48, 64), resize_corners=True, scale=0.5)


def evaluated(weights: Path, data: Path, **more: Any) -> np.ndarray[Any, Any]:
    return evaluate_file(EvaluateRequest(weights, str(data), data.parent, threads=1, **more)).matrix


def test_a_run_its_weights_and_their_evaluation_agree(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = TrainOptions(root=data.parent, output=tmp_path / "run", steps=1, batch=2, crop=(32, 32), threads=1)
    hide(monkeypatch, "matplotlib")  # no picture of the log
    train(corner_recipe(data), options, say=lambda line: None)
    weights = tmp_path / "run" / "small.safetensors"
    choice, split = network_in(weights), open_dataset(str(data), data.parent, "val")
    assert (choice.recipe.resize_corners, choice.recipe.scale) == (True, 0.5)
    frame, label = split.load(0)
    logits = official_logits(choice.network, frame, choice.spec())
    predicted = logits.argmax(1)[0].numpy().astype(np.uint8)
    wanted = confusion(label, predicted, 3, 9)
    found = evaluated(weights, data)
    assert np.abs(found - wanted).sum() <= 0.005 * wanted.sum()
    shipped = evaluate_file(EvaluateRequest(weights, str(data), data.parent, threads=1)).scores.miou
    assert json.loads(read_metadata(weights)["miou"])["val"] == pytest.approx(shipped, abs=1e-6)  # rounded in the file


def test_scoring_is_evaluating_for_every_way_to_resize(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = small_recipe(data)
    network = build_network(plain.arch, 3, aux=False).eval()
    state = {name: value for name, value in network.state_dict().items() if value.is_floating_point()}
    matrices = []
    for recipe in (plain, dataclasses.replace(plain, resize="letterbox", size=(64, 64)), corner_recipe(data)):
        save_weights(state, tmp_path / "w.safetensors", weights_metadata(recipe))
        scores = score(network, open_dataset(str(data), data.parent, "val"), recipe.spec(), torch.device("cpu"), 1)
        matrices.append(evaluated(tmp_path / "w.safetensors", data))
        evaluation = evaluate_file(EvaluateRequest(tmp_path / "w.safetensors", str(data), data.parent, threads=1))
        assert scores.to_json() == evaluation.scores.to_json()
    assert all((one != other).any() for one, other in ((matrices[0], matrices[1]), (matrices[0], matrices[2])))
    arguments = ["evaluate", str(tmp_path / "w.safetensors"), "--dataset", str(data), "--root", str(data.parent), "--threads", "1"]
    for more in (["--scales", "1,1.5", "--flip"], ["--tiles", "8"]):
        assert CliRunner().invoke(main, [*arguments, *more]).exit_code == 0


def test_scored_at_no_other_size(data: Path, tmp_path: Path) -> None:
    options = TrainOptions(root=data.parent, output=tmp_path / "run", size=(32, 64), steps=1, threads=1)
    with pytest.raises(UsageError, match=r"small sees every frame at 0.5 of its own size, so it cannot be scored at one size"):
        train(corner_recipe(data), options, say=lambda line: None)


def test_a_view_at_a_zoom_of_one_is_the_frame_as_the_network_sees_it() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    plain = Augmentation(scale=(1, 1), aspect=0, flip=False, colour=0, frame_scale=0.5)
    label = np.arange(96 * 128, dtype=np.uint8).reshape(96, 128)

    def view(options: Augmentation) -> np.ndarray[Any, Any]:
        return random_view(frame, label, (48, 64), options, 255, np.random.default_rng(0))[0].astype(np.float32)

    spec = dataclasses.replace(corner_spec(), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    values = 255 * normalised(frame, spec)
    wanted = resized(values, (48, 64))[0].permute(1, 2, 0).numpy()
    assert np.abs(view(dataclasses.replace(plain, corners=True)) - wanted).max() <= 16  # OpenCV's weights have five bits
    half_pixels = F.interpolate(values, (48, 64), mode="bilinear", align_corners=False)[0].permute(1, 2, 0).numpy()
    assert np.abs(view(plain) - half_pixels).max() <= 16
    assert np.abs(half_pixels - wanted).max() > 40


def test_the_loss_reads_logits_from_corner_to_corner() -> None:
    logits, labels = torch.randn(1, 3, 4, 5, generator=torch.Generator().manual_seed(0)), torch.zeros(1, 25, 33, dtype=torch.long)
    wanted = F.cross_entropy(resized(logits, (25, 33)), labels)
    assert Loss(9, corners=True).one(logits, labels).item() == pytest.approx(wanted.item(), rel=1e-6)
    assert Loss(9).one(logits, labels).item() != pytest.approx(wanted.item(), rel=1e-4)
