"""Training: the golden step, a run that was killed, what a run leaves behind, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from helpers import hide
from safetensors.numpy import load_file
from small_training import small_recipe, write_dataset

from rtformer_deploy.cli import main
from rtformer_deploy.commands.train import train
from rtformer_deploy.errors import DatasetError, DeployError, OutputError, UsageError, WeightsError
from rtformer_deploy.formats.recipe import load_recipe
from rtformer_deploy.nn import build_network
from rtformer_deploy.nn.weights import load_into, load_weights, read_metadata
from rtformer_deploy.training.log import Log
from rtformer_deploy.training.losses import Loss, class_weights
from rtformer_deploy.training.options import TrainOptions, check_resumed, plain
from rtformer_deploy.training.run import pick_device
from rtformer_deploy.training.schedule import Schedule, Stage
from rtformer_deploy.training.splits import open_splits


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data")


def options(dataset: Path, output: Path, **changes: object) -> TrainOptions:
    values: dict[str, object] = {
        "steps": 6, "batch": 2, "crop": (32, 32), "final_batch": 3, "final_share": 0.5, "warmup": 2, "balance": 1.1, "rare": 0.5,
        "paste": 0.5, "threads": 1, "evaluate_every": 3, "log_every": 1,
    }  # fmt: skip
    return TrainOptions(root=dataset.parent, output=output, **(values | changes))  # type: ignore[arg-type]


def test_one_step_from_the_golden_weights(shared: Path) -> None:
    golden = np.load(shared / "golden" / "slim_train_2x3x192x320.npz")
    arch = dict(load_recipe("rtformer-slim-cityscapes").arch) | {"drop_path": 0.0}
    network = build_network(arch, 19)
    load_into(network, load_weights(shared / "golden" / "slim.pdparams"), "the golden weights")
    network.train()
    logits, aux = network(torch.from_numpy(golden["input"]))
    total, main_loss, aux_loss = Loss(255)(logits, aux, torch.from_numpy(golden["label"]).long())
    torch.autograd.backward(total)

    for name, found in (("logits", logits), ("aux", aux)):
        full = torch.nn.functional.interpolate(found, golden["input"].shape[2:], mode="bilinear")
        wanted = golden[f"{name}_sub4"]
        assert np.abs(full[:, :, ::4, ::4].detach().numpy() - wanted).max() <= 3e-5 * np.abs(wanted).max()
    assert main_loss.item() == pytest.approx(float(golden["loss_main"]), rel=1e-5)
    assert aux_loss.item() == pytest.approx(float(golden["loss_aux"]), rel=1e-5)
    assert total.item() == pytest.approx(float(golden["loss"]), rel=1e-5)
    state = network.state_dict()
    statistics = [name for name in golden.files if name.startswith("stat/")]
    assert len(statistics) > 90
    for name in statistics:
        key = name.removeprefix("stat/").replace("._mean", ".running_mean").replace("._variance", ".running_var")
        np.testing.assert_allclose(state[key].numpy(), golden[name], rtol=2e-4, atol=2e-5 * np.abs(golden[name]).max(), err_msg=name)


@pytest.mark.parametrize("killed_after", [2, 4])
def test_a_killed_run_ends_with_the_bits_of_an_unbroken_one(dataset: Path, tmp_path: Path, killed_after: int) -> None:
    recipe = small_recipe(dataset)
    whole, broken = options(dataset, tmp_path / "whole"), options(dataset, tmp_path / "broken")
    train(recipe, whole)
    steps = iter(range(1, 100))
    stopped = train(recipe, broken, stop=lambda: next(steps) == killed_after)
    assert stopped == {"kind": "stopped", "step": killed_after}
    train(recipe, broken, resume=True)

    for name in ("checkpoint.safetensors", "small.safetensors"):
        one, other = load_file(whole.output / name), load_file(broken.output / name)
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert value.tobytes() == other[key].tobytes(), f"{name}: {key}"


def test_a_resumed_log_holds_every_step_once(dataset: Path, tmp_path: Path) -> None:
    recipe, run = small_recipe(dataset), options(dataset, tmp_path / "run")
    steps = iter(range(1, 100))
    train(recipe, run, stop=lambda: next(steps) == 2)
    with open(run.output / "log.jsonl", "a") as file:  # what a kill leaves: steps after the checkpoint, and half a line
        file.write('{"kind": "step", "step": 3, "loss": 1.5, "lr": 0.01}\n{"kind": "st')
    train(recipe, run, resume=True)
    records = [json.loads(line) for line in (run.output / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if record["kind"] == "step"] == [1, 2, 3, 4, 5, 6]


def test_what_a_run_leaves_behind(dataset: Path, tmp_path: Path) -> None:
    recipe, run = small_recipe(dataset), options(dataset, tmp_path / "run", hold_out="night")
    seen: list[str] = []
    last = train(recipe, run, watch=lambda record: seen.append(str(record["kind"])))
    assert seen.count("step") == 6
    assert seen[0] == "start"
    assert seen[-1] == "shipped"
    assert set(last["scores"]) == {"val", "held-out"}
    assert set(last["scores"]["val"]["iou"]) == {"sky", "road", "pole"}
    assert (run.output / "log.svg").read_text().startswith("<svg")
    weights = run.output / "small.safetensors"
    assert read_metadata(weights)["recipe"] == "small"
    tensors = load_file(weights)
    assert all(value.dtype == np.float16 for value in tensors.values())
    assert not any(name.startswith("seghead_extra") for name in tensors)
    load_into(build_network(recipe.arch, 3, aux=False), load_weights(weights), "the shipped weights")


def test_without_the_extra_everything_but_the_picture_is_written(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, said = options(dataset, tmp_path / "run", steps=1), list[str]()
    hide(monkeypatch, "matplotlib")
    train(small_recipe(dataset), run, say=said.append)
    assert said == ["log.svg is not drawn: matplotlib is not installed. Run: pip install 'rtformer-deploy[report]'"]
    assert sorted(path.name for path in run.output.iterdir()) == ["checkpoint.safetensors", "log.jsonl", "small.safetensors"]


@pytest.mark.slow
def test_training_learns_classes_that_have_colours(dataset: Path, tmp_path: Path) -> None:
    run = options(dataset, tmp_path / "run", steps=120, batch=4, rate=5e-3, ema=0.9, evaluate_every=1000, log_every=40, colour=0.1)
    last = train(small_recipe(dataset), run)
    assert last["scores"]["val"]["miou"] > 0.6


def test_initial_weights_of_another_class_count(dataset: Path, tmp_path: Path) -> None:
    recipe = small_recipe(dataset)
    train(recipe, options(dataset, tmp_path / "first", steps=1))
    other = dataclasses.replace(recipe, arch=dict(recipe.arch) | {"head_channels": 8})
    seen: list[list[str]] = []
    run = options(dataset, tmp_path / "second", steps=1, init=tmp_path / "first" / "small.safetensors")
    train(other, run, watch=lambda record: seen.append(record.get("left_out", [])))
    assert any("seghead.conv1.weight" in line and "stays fresh" in line for line in seen[0])
    assert any("seghead_extra" in line and "not in the file" in line for line in seen[0])
    assert not any("layer1" in line for line in seen[0])


def test_another_networks_weights_are_refused(dataset: Path, tmp_path: Path, shared: Path) -> None:
    run = options(dataset, tmp_path / "run", init=shared / "golden" / "slim.pdparams")
    with pytest.raises(WeightsError, match="another network's weights"):
        train(small_recipe(dataset), run)


def test_a_run_is_not_overwritten_and_not_changed(dataset: Path, tmp_path: Path) -> None:
    recipe, run = small_recipe(dataset), options(dataset, tmp_path / "run", steps=1)
    train(recipe, run)
    with pytest.raises(UsageError, match="holds a run already"):
        train(recipe, run)
    with pytest.raises(UsageError, match=r"weight_decay was 0\.05, is 0\.1"):
        train(recipe, dataclasses.replace(run, weight_decay=0.1), resume=True)
    again = train(recipe, run, resume=True)
    assert again["step"] == 1
    longer = train(recipe, dataclasses.replace(run, steps=2), resume=True)
    assert longer["step"] == 2
    with pytest.raises(UsageError, match="2 steps already"):
        train(recipe, run, resume=True)


def test_a_run_of_an_earlier_version_goes_on_under_its_old_names(dataset: Path, tmp_path: Path) -> None:
    now = options(dataset, tmp_path / "run")
    before = plain(now)
    before["mix"] = before.pop("paste")
    check_resumed(before, now)
    with pytest.raises(UsageError, match=r"paste was 0\.5, is 0\.1"):
        check_resumed(before, dataclasses.replace(now, paste=0.1))


def test_resuming_from_nothing_or_from_rubbish(dataset: Path, tmp_path: Path) -> None:
    run = options(dataset, tmp_path / "run")
    with pytest.raises(WeightsError, match="not a checkpoint"):
        train(small_recipe(dataset), run, resume=True)
    run.output.mkdir()
    (run.output / "checkpoint.safetensors").write_bytes(b"rubbish")
    with pytest.raises(WeightsError, match="not a checkpoint"):
        train(small_recipe(dataset), run, resume=True)


def test_a_run_that_diverges_says_so(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="diverged"):
        train(small_recipe(dataset), options(dataset, tmp_path / "run", rate=1e30, warmup=0, clip=0.0))


def test_a_batch_of_one_is_refused(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least 2 views"):
        train(small_recipe(dataset), options(dataset, tmp_path / "run", final_batch=1))


def test_the_log_tells_no_paths(dataset: Path, tmp_path: Path) -> None:
    train(small_recipe(dataset), options(dataset, tmp_path / "run", steps=1))
    assert str(tmp_path) not in (tmp_path / "run" / "log.jsonl").read_text()


def test_held_out_frames_are_not_trained_on(dataset: Path) -> None:
    fit, checks = open_splits(str(dataset), dataset.parent, hold_out="night")
    assert [sample.name for sample in checks[1].samples] == ["night_5"]
    assert "night_5" not in {sample.name for sample in fit.samples}
    assert len(fit) == 5
    with pytest.raises(DatasetError, match="noon"):
        open_splits(str(dataset), dataset.parent, hold_out="noon")


def test_the_schedule_warms_up_decays_and_counts() -> None:
    schedule = Schedule(100, 1.0, 10, 1.0, (Stage((8, 8), 4, 0.7), Stage((16, 16), 2, 0.3)))
    assert schedule.learning_rate(0) == pytest.approx(0.1)
    assert schedule.learning_rate(9) == pytest.approx(1.0)
    assert schedule.learning_rate(10) == pytest.approx(1.0)
    assert schedule.learning_rate(55) == pytest.approx(0.5)
    assert [schedule.stage(step).batch for step in (0, 69, 70, 99)] == [4, 4, 2, 2]
    assert schedule.first_sample(70) == 280
    assert schedule.first_sample(72) == 284


def test_losses_ignore_weigh_and_mine() -> None:
    logits = torch.tensor([4.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4).clone()
    labels = torch.zeros(1, 4, 4, dtype=torch.long)
    labels[0, 0, 0], labels[0, 3] = 1, 255
    easy, hard = np.log1p(np.exp(-4.0)), np.log1p(np.exp(4.0))
    assert Loss(255).one(logits, labels).item() == pytest.approx((11 * easy + hard) / 12, rel=1e-5)
    assert Loss(255, ohem=0.7).one(logits, labels).item() == pytest.approx(hard, rel=1e-5)
    weighed = Loss(255, torch.tensor([1.0, 3.0])).one(logits, labels).item()
    assert weighed == pytest.approx((11 * easy + 3 * hard) / 14, rel=1e-5)
    weights = class_weights(np.array([0.9, 0.1]), 1.02)
    assert weights[1] > 3 * weights[0]
    assert weights.mean().item() == pytest.approx(1.0)


def test_a_batch_without_a_scored_pixel_gives_no_nan() -> None:
    logits, labels = torch.zeros(1, 2, 1, 1), torch.full((1, 4, 4), 255)
    assert Loss(255).one(logits, labels).item() == 0.0
    assert Loss(255, ohem=0.7).one(logits, labels).item() == 0.0


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="no device 'quantum'"):
        pick_device("quantum")


def test_the_command_trains_and_resumes(dataset: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "small.toml"
    recipe.write_text(
        f'name = "small"\ndataset = "{dataset}"\n[architecture]\nname = "rtformer"\nbase_channels = 8\nhead_channels = 16\n'
        "spp_channels = 16\ncross_size = 4\n[input]\nsize = [48, 64]\n"
    )
    call = ["train", "--recipe", str(recipe), "--root", str(dataset.parent), "-o", str(tmp_path / "run"), "--batch", "2", "--threads", "1"]
    first = CliRunner().invoke(main, [*call, "--steps", "1"])
    assert first.exit_code == 0, first.output
    assert "mIoU val" in first.output
    again = CliRunner().invoke(main, [*call, "--steps", "1"])
    assert again.exit_code == 2
    assert "holds a run already" in again.output
    resumed = CliRunner().invoke(main, [*call, "--steps", "2", "--resume"])
    assert resumed.exit_code == 0, resumed.output
    assert "from step 1" in resumed.output


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("no record", "line 2: it is not JSON: invalid character"),
        ("[" * 100_000, "line 2: its lists and tables are nested more than 32 deep"),
        ('{"step": 1}', "line 2: it has no kind"),
        ('{"kind": ["step"]}', "line 2: kind is a list of 1 value; expected a text"),
        ('{"kind": "step", "step": "1"}', "line 2: step is '1'; expected a whole number"),
        ('{"kind": "step", "step": 1, "lr": 1}', "line 2: it has no loss"),
        ('{"kind": "scores", "scores": {"val": {"miou": 2}}}', "line 2: scores.val.miou is 2; expected a number, at most 1"),
    ],
)
def test_a_log_that_is_none_is_refused_and_stays(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "log.jsonl"
    text = f'{{"kind": "start", "step": 0}}\n{line}\n{{"kind": "stopped", "step": 2}}\n'
    path.write_text(text)
    with pytest.raises(OutputError, match=re.escape(f"log.jsonl is not a training log: {message}")):
        Log(path, resume=True)
    assert path.read_text() == text
