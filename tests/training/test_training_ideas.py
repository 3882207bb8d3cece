"""Options of training that are off by default: each does what it says, shows in the log, and holds the bits of a run that was killed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import hide
from safetensors.numpy import load_file
from small_training import small_recipe, write_dataset
from torch import nn

from rtformer_deploy.commands.train import train
from rtformer_deploy.errors import UsageError
from rtformer_deploy.formats.recipe import load_recipe
from rtformer_deploy.nn import auxiliaries_of, build_network
from rtformer_deploy.nn.weights import load_into, load_weights
from rtformer_deploy.opening import open_any
from rtformer_deploy.training.boundary import near_boundary
from rtformer_deploy.training.distill import distillation_loss, taught
from rtformer_deploy.training.ema import Average
from rtformer_deploy.training.losses import Loss
from rtformer_deploy.training.options import TrainOptions, check_resumed, plain

#: idea -> its options, and the parts of the loss beside "main" and "aux"
IDEAS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "distillation, larger views late": (
        {"distill": 0.5, "final_crop": (48, 64), "final_share": 0.5, "final_batch": 3},
        ["distill"],
    ),
    "all others": (
        {"boundary": 2.0, "heads": ("context", "boundary"), "ohem": 0.7, "balance": 1.1, "rare": 0.5, "paste": 0.5},
        ["context", "boundary_bce", "boundary_dice"],
    ),
}


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    hide(monkeypatch, "matplotlib")  # the picture of the log is the same for every option, and slow
    return write_dataset(tmp_path / "data", frames=4)


def options(dataset: Path, output: Path, **changes: Any) -> TrainOptions:
    values: dict[str, Any] = {"steps": 4, "batch": 2, "crop": (32, 32), "warmup": 1, "threads": 1, "evaluate_every": 100, "log_every": 1}
    return TrainOptions(root=dataset.parent, output=output, **(values | changes))


@pytest.mark.parametrize("idea", IDEAS)
def test_a_killed_run_ends_with_the_bits_of_an_unbroken_one(idea: str, dataset: Path, tmp_path: Path) -> None:
    recipe, (changes, parts) = small_recipe(dataset), IDEAS[idea]
    whole, broken = (options(dataset, tmp_path / name, **changes) for name in ("whole", "broken"))
    train(recipe, whole)
    steps = iter(range(1, 100))
    assert train(recipe, broken, stop=lambda: next(steps) == 2) == {"kind": "stopped", "step": 2}
    train(recipe, broken, resume=True)
    for file in ("checkpoint.safetensors", "small.safetensors"):
        one, other = load_file(whole.output / file), load_file(broken.output / file)
        assert one.keys() == other.keys()
        assert [key for key in one if one[key].tobytes() != other[key].tobytes()] == []
    records = [json.loads(line) for line in (whole.output / "log.jsonl").read_text().splitlines()]
    keys = list(next(record for record in reversed(records) if record["kind"] == "step"))
    assert keys[keys.index("loss") : keys.index("gradient")] == ["loss", "main", "aux", *parts]


def test_the_bits_are_others_with_each_option(dataset: Path, tmp_path: Path) -> None:
    """Otherwise an option would do nothing, and the test above would hold for it all the same.

    All runs begin with the same weights: to build more heads draws more random numbers, which alone would change the others.
    """
    bits, before = set(), tmp_path / "before.safetensors"
    recipe = small_recipe(dataset)
    train(recipe, options(dataset, tmp_path / "first", steps=1))
    shutil.copy(tmp_path / "first" / "small.safetensors", before)
    some: list[dict[str, Any]] = [{}, {"boundary": 2.0}, {"distill": 0.5}, {"heads": ("context",)}, {"heads": ("boundary",)}]
    for number, changes in enumerate(some):
        train(recipe, options(dataset, tmp_path / str(number), steps=2, init=before, **changes))
        bits.add((tmp_path / str(number) / "small.safetensors").read_bytes()[-2000:])
    assert len(bits) == 5


def test_weights_of_more_heads_are_those_of_the_plain_network(dataset: Path, tmp_path: Path) -> None:
    recipe = small_recipe(dataset)
    train(recipe, options(dataset, tmp_path / "run", steps=1, heads=("context", "boundary")))
    weights = tmp_path / "run" / "small.safetensors"
    load_into(build_network(recipe.arch, 3, aux=False), load_weights(weights), "the shipped weights")
    with open_any(weights) as runner:
        assert runner.spec.arch["aux_context"] is True
        assert runner.run([np.zeros((48, 64, 3), np.uint8)])[0].shape == (48, 64)


def test_heads_give_maps_of_classes_and_of_boundaries() -> None:
    arch = dict(load_recipe("rtformer-slim-camvid").arch) | {"base_channels": 8, "aux_context": True, "aux_boundary": True}
    network, views = build_network(arch, 11), torch.randn(2, 3, 64, 96)
    shapes = [tuple(output.shape) for output in network.train()(views)]
    assert shapes == [(2, 11, 8, 12), (2, 11, 8, 12), (2, 11, 2, 3), (2, 1, 8, 12)]
    assert [each.name for each in auxiliaries_of(arch)] == ["aux", "context", "boundary"]
    assert network.eval()(views).shape == (2, 11, 8, 12)
    assert [each.name for each in auxiliaries_of(load_recipe("rtformer-slim-camvid").arch)] == ["aux"]
    assert [each.name for each in auxiliaries_of(load_recipe("ddrnet23-cityscapes").arch)] == ["aux"]


def test_a_head_that_the_network_has_not(dataset: Path, tmp_path: Path) -> None:
    recipe = small_recipe(dataset)
    with pytest.raises(UsageError, match=r"rtformer has no auxiliary head 'arm'\.\nIt has: context, boundary\."):
        train(recipe, options(dataset, tmp_path / "run", heads=("arm",)))


def test_near_a_boundary_is_what_a_window_of_five_pixels_sees() -> None:
    rng = np.random.default_rng(0)
    labels = np.kron(rng.choice([0, 1, 2, 255], (2, 4, 5)), np.ones((1, 4, 4), int))
    found = near_boundary(torch.from_numpy(labels), 255).numpy()
    padded = np.pad(labels, ((0, 0), (2, 2), (2, 2)), constant_values=255)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), (1, 2)).reshape(*labels.shape, 25)
    wanted = [[[len(set(window) - {255}) > 1 for window in row] for row in image] for image in windows.tolist()]
    np.testing.assert_array_equal(found, wanted)
    assert 0.1 < found.mean() < 0.9


def test_pixels_near_a_boundary_weigh_more() -> None:
    logits = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(1, 8, 8, dtype=torch.long)
    labels[0, :, 6:], labels[0, 0] = 2, 255
    losses = F.cross_entropy(logits, labels, reduction="none", ignore_index=255)
    counts = torch.zeros(8, 8)
    counts[1:], counts[1:, 4:] = 1, 3
    classes = torch.tensor([1.0, 1.0, 5.0])
    for weights in (None, classes):
        each = counts if weights is None else counts * torch.where(labels[0] == 2, 5.0, 1.0)
        wanted = (losses[0] * each).sum() / each.sum()
        assert Loss(255, weights, boundary=2.0).one(logits, labels).item() == pytest.approx(wanted.item(), rel=1e-5)


def test_distillation_is_the_divergence_from_the_average() -> None:
    ours, theirs = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    wanted = F.kl_div(ours.log_softmax(1), theirs.softmax(1), reduction="none").sum(1).mean()
    assert distillation_loss(ours, theirs).item() == pytest.approx(wanted.item(), rel=1e-5)
    assert distillation_loss(ours, ours).item() == pytest.approx(0.0, abs=1e-6)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5))
    views = torch.randn(2, 3, 4, 4)
    logits = taught(network, views)
    assert torch.equal(logits, taught(network, views))  # as it is deployed: nothing is dropped
    assert not logits.requires_grad


def test_the_average_moves_by_the_step() -> None:
    weight, norm = nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1)
    network = nn.Sequential(weight, norm)
    average, wanted = Average(network, 0.5), 0.0
    for step in range(12):
        with torch.no_grad():
            weight.weight.fill_(float(step * step))
            norm.get_buffer("num_batches_tracked").fill_(7 * step)
        average.update(network, step)
        share = 1.0 if step == 0 else 1 - min(0.5, (1 + step) / (10 + step))
        wanted += share * (step * step - wanted)
        assert average.state["0.weight"].item() == pytest.approx(wanted, rel=1e-5)
        assert average.state["1.num_batches_tracked"].item() == 7 * step
    assert average.network is not network


def test_a_run_that_began_before_an_option_was_there_goes_on_without_it(dataset: Path, tmp_path: Path) -> None:
    now = options(dataset, tmp_path / "run")
    before = {key: value for key, value in plain(now).items() if key not in ("heads", "boundary", "distill", "fold", "also")}
    check_resumed(before, now)
    with pytest.raises(UsageError, match=r"boundary was 0\.0, is 2\.0"):
        check_resumed(before, options(dataset, tmp_path / "run", boundary=2.0))
