"""What a run refuses before its first step, what it leaves if scoring fails, and that it goes on with its own data only."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
from click.testing import CliRunner
from PIL import Image
from small_training import small_recipe, write_dataset

from rtformer_deploy.cli import main
from rtformer_deploy.commands.train import train, with_dataset
from rtformer_deploy.errors import DatasetError, UsageError, WeightsError
from rtformer_deploy.formats.recipe import load_recipe
from rtformer_deploy.formats.safetensors_file import open_safetensors
from rtformer_deploy.opening import open_any
from rtformer_deploy.training import run as training_run
from rtformer_deploy.training.checkpoint import KEY
from rtformer_deploy.training.options import TrainOptions


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data", frames=2)


def options(data: Path, output: Path, **changes: Any) -> TrainOptions:
    values: dict[str, Any] = {"steps": 1, "batch": 2, "crop": (32, 32), "threads": 1, "log_every": 1}
    return TrainOptions(root=data.parent, output=output, **(values | changes))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and a run of one step on it; tests take a copy."""
    folder = tmp_path_factory.mktemp("ran")
    data = write_dataset(folder / "data", frames=2)
    train(small_recipe(data), options(data, folder / "run"))
    return folder


def only(data: Path, split: str, value: int) -> None:
    for label in (data.parent / "labels" / split).glob("*.png"):
        Image.fromarray(np.full((48, 64), value, np.uint8)).save(label)


@pytest.mark.parametrize(("split", "what"), [("train", "learn"), ("val", "score")])
def test_nothing_to_learn_is_found_before_the_first_step(data: Path, tmp_path: Path, split: str, what: str) -> None:
    only(data, split, 9)
    seen: list[object] = []
    with pytest.raises(DatasetError, match=rf"nothing to {what} in the '{split}' split of small: no pixel has one of the classes"):
        train(small_recipe(data), options(data, tmp_path / "run"), watch=seen.append)
    assert seen == []
    assert not (tmp_path / "run").exists()


def test_classes_that_never_occur_are_told(data: Path, tmp_path: Path) -> None:
    for label in data.parent.glob("labels/train/*.png"):
        ids = np.asarray(Image.open(label))
        Image.fromarray(np.where(ids == 2, 1, ids).astype(np.uint8)).save(label)
    said: list[str] = []
    train(small_recipe(data), options(data, tmp_path / "run"), say=said.append)
    assert said == ["No pixel of the 'train' split of small is pole: this cannot be learned from it."]


def test_weights_are_there_if_scoring_fails(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no memory")

    recipe, run = small_recipe(data), options(data, tmp_path / "run")
    with monkeypatch.context() as broken:
        broken.setattr(training_run, "score", fail)
        with pytest.raises(RuntimeError, match="no memory"):
            train(recipe, run)
    open_any(run.output / "small.safetensors").close()
    train(recipe, run, resume=True)
    with open_safetensors(run.output / "small.safetensors", "np") as file:
        assert set(json.loads(file.metadata()["miou"])) == {"val"}


@pytest.mark.parametrize("name", ["log.jsonl", "small.safetensors", "checkpoint.safetensors"])
def test_what_is_in_the_output_folder_is_not_overwritten(data: Path, tmp_path: Path, name: str) -> None:
    run = options(data, tmp_path / "run")
    run.output.mkdir()
    (run.output / name).write_text("of another run")
    with pytest.raises(UsageError, match=f"run holds a run already: {name}") as error:
        train(small_recipe(data), run)
    assert ("--resume" in str(error.value)) == (name == "checkpoint.safetensors")
    assert [(path.name, path.read_text()) for path in run.output.iterdir()] == [(name, "of another run")]


def test_a_run_goes_on_in_a_folder_that_was_moved(ran: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(ran, tmp_path / "moved") / "data" / "small.toml"
    last = train(small_recipe(moved), options(moved, tmp_path / "moved" / "run", steps=2), resume=True)
    assert last["step"] == 2


def change_names(data: Path) -> None:
    for half, suffix in (("images", "jpg"), ("labels", "png")):
        folder = data.parent / half / "train"
        (folder / f"day_0.{suffix}").rename(folder / f"noon.{suffix}")


def change_content(data: Path) -> None:
    Image.new("RGB", (64, 48)).save(data.parent / "images" / "val" / "day_0.jpg")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.write_text(data.read_text().replace('"small"', '"other"')), "another dataset"),
        (lambda data: data.write_text(data.read_text().replace('"pole"', '"post"')), "other classes"),
        (lambda data: data.write_text(data.read_text() + "[label_map]\n0 = 1\n1 = 0\n2 = 2\n"), "another meaning of the label pixels"),
        (change_names, "other files in train"),
        (change_content, "other files in val"),
    ],
)  # fmt: skip
def test_a_run_does_not_go_on_with_other_data(ran: Path, tmp_path: Path, change: Any, message: str) -> None:
    shutil.copytree(ran / "run", tmp_path / "run")
    before = (tmp_path / "run" / "checkpoint.safetensors").read_bytes()
    other = shutil.copytree(ran / "data", tmp_path / "other") / "small.toml"
    change(other)
    run = options(other, tmp_path / "run", steps=2)
    if message is None:  # the same frames in both splits: as they were written
        train(small_recipe(other), run, resume=True)
        return
    with pytest.raises(
        UsageError, match=rf"The run was trained on small in .*data \(train 2 frames, val 2 frames; .*: .*{message}"
    ) as error:
        train(small_recipe(other), run, resume=True)
    assert f"not on {'other' if 'another dataset' in message else 'small'} in {other.parent} (" in str(error.value)
    assert (tmp_path / "run" / "checkpoint.safetensors").read_bytes() == before


def rewrite(path: Path, change: Any) -> None:
    with open_safetensors(path, "pt") as file:
        meta, tensors = json.loads(file.metadata()[KEY]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(meta)
    safetensors.torch.save_file(tensors, path, {KEY: json.dumps(meta)})


def test_checkpoints_of_other_versions(ran: Path, tmp_path: Path) -> None:
    data = ran / "data" / "small.toml"
    run = options(data, shutil.copytree(ran / "run", tmp_path / "run"))
    checkpoint = run.output / "checkpoint.safetensors"
    rewrite(checkpoint, lambda meta: (meta.pop("version"), meta["run"].pop("dataset")))  # as earlier versions wrote it
    assert train(small_recipe(data), run, resume=True)["step"] == 1
    rewrite(checkpoint, lambda meta: meta.update(version=2))
    with pytest.raises(WeightsError, match=r"checkpoint in version 2 of the format; this rtformer-deploy reads version 1"):
        train(small_recipe(data), run, resume=True)


def test_a_recipes_dataset_lies_beside_the_recipe(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of the same name in the working folder is another one."""
    (tmp_path / "recipes").mkdir()
    (tmp_path / "working").mkdir()
    (tmp_path / "recipes" / "mini.toml").write_text(data.read_text())
    decoy = data.read_text().replace('"sky", "road", "pole"', '"a", "b", "c"').replace("images/", "nowhere/")
    (tmp_path / "working" / "mini.toml").write_text(decoy)
    (tmp_path / "recipes" / "r.toml").write_text(
        'name = "mine"\ndataset = "mini.toml"\n[architecture]\nname = "rtformer"\nbase_channels = 8\nhead_channels = 16\n'
        "spp_channels = 16\ncross_size = 4\n[input]\nsize = [48, 64]\n"
    )
    monkeypatch.chdir(tmp_path / "working")
    call = ["train", "--recipe", "../recipes/r.toml", "--root", "../data", "--output", "run", "--steps", "1", "--batch", "2"]
    result = CliRunner().invoke(main, [*call, "--threads", "1"])
    assert result.exit_code == 0, result.output
    with open_any(Path("run/mine.safetensors")) as runner:
        assert runner.spec.classes == ("sky", "road", "pole")
    assert with_dataset(load_recipe("../recipes/r.toml"), "mini.toml").labels.names == ("a", "b", "c")  # the command line's own path
