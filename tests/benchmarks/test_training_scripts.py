"""The scripts of training, on a tiny dataset and a CPU: the one for a GPU, and the one that compares ideas and goes on after a stop."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from helpers import hide
from safetensors.numpy import load_file
from small_training import write_dataset

from rtformer_deploy.export.weights_choice import choose_network
from rtformer_deploy.files import sha256
from rtformer_deploy.formats.weights_file import weights_metadata
from rtformer_deploy.nn.weights import read_metadata, save_weights


@pytest.fixture
def scripts(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    hide(monkeypatch, "matplotlib")
    monkeypatch.syspath_prepend(root / "benchmarks")
    names = ("train_gpu", "train_ideas", "train_average")
    yield {name: importlib.import_module(name) for name in names}
    for name in (*names, "slim_camvid", "harness"):
        sys.modules.pop(name, None)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe of a small network and a dataset with two short drives."""
    dataset = write_dataset(tmp_path / "data")
    dataset.write_text("frame_rate = 0.1\n" + dataset.read_text())
    path = tmp_path / "small.toml"
    path.write_text(
        f'name = "small"\ndataset = "{dataset}"\n[architecture]\nname = "rtformer"\nbase_channels = 8\nhead_channels = 16\n'
        "spp_channels = 16\ncross_size = 4\n[input]\nsize = [48, 64]\n"
    )
    return path


def test_the_script_for_a_gpu_trains_and_writes_half_precision(scripts: dict[str, ModuleType], recipe: Path, tmp_path: Path) -> None:
    words = ["--root", str(recipe.parent / "data"), "--output", str(tmp_path / "run"), "--json", str(tmp_path / "gpu.json")]
    more = ["--device", "cpu", "--threads", "1", "--size", "48x64", "--crop", "32x48", "--batch", "2", "--steps", "2", "--fold", "1/3"]
    assert scripts["train_gpu"].main([*words, "--recipe", str(recipe), *more]) == 0
    figures = json.loads((tmp_path / "gpu.json").read_text())
    options = figures["options"]
    assert (options["crop"], options["batch"], options["rate"], options["rare"]) == ([32, 48], 2, 2e-3, 0.35)
    assert figures["images_per_second"] > 0
    assert set(figures["scores"]) == {"train:1/3"}
    assert {str(value.dtype) for value in load_file(tmp_path / "run" / "small.safetensors").values()} == {"float16"}


def test_the_options_of_the_shipped_run_are_words_of_the_command(scripts: dict[str, ModuleType]) -> None:
    words = scripts["train_gpu"].words_of(scripts["train_gpu"].OPTIONS | scripts["train_gpu"].ON_GPU)
    line = " ".join(words)
    for part in ("--size 360x480", "--crop 360x480", "--batch 16", "--scale 0.75 2.0", "--lr 0.002", "--paste 0.2", "--device cuda"):
        assert part in line


def test_an_option_that_train_has_not(scripts: dict[str, ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert scripts["train_gpu"].main(["--root", str(tmp_path), "--stps", "2"]) == 1
    assert "No such option '--stps'" in capsys.readouterr().err


def test_ideas_are_compared_with_the_baseline_and_go_on_after_a_stop(
    scripts: dict[str, ModuleType], recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ideas = scripts["train_ideas"]
    for key, value in {"size": (48, 64), "crop": (32, 32), "batch": 2}.items():
        monkeypatch.setitem(ideas.OPTIONS, key, value)
    monkeypatch.setitem(ideas.IDEAS, "larger views", {"crop": (32, 64), "batch": 2})
    monkeypatch.setattr(ideas, "WATCHED", ("pole",))
    words = ["--root", str(recipe.parent / "data"), "--folder", str(tmp_path / "work"), "--json", str(tmp_path / "ideas.json")]
    words += ["--recipe", str(recipe), "--threads", "1", "--device", "cpu", "--folds", "1/3", "--base-steps", "3", "--steps", "4"]
    words += ["--ideas", "baseline", "larger views"]
    assert ideas.main([*words, "--minutes", "0"]) == 0
    assert json.loads((tmp_path / "ideas.json").read_text())["folds"] == {}
    assert (tmp_path / "work" / "fold-1-of-3" / "base" / "checkpoint.safetensors").exists()
    assert ideas.main(words) == 0
    figures = json.loads((tmp_path / "ideas.json").read_text())
    runs = figures["folds"]["1/3"]
    assert {name: run["steps"] for name, run in runs.items()} == {"base": 3, "baseline": 4, "larger views": 2}
    assert all(run["images_per_cpu_second"] > 0 for run in runs.values())
    assert json.loads((tmp_path / "work" / "fold-1-of-3" / "base" / "pace.json").read_text())["images"] == 6  # both parts of it
    moved = round(runs["larger views"]["miou"] - runs["baseline"]["miou"], 2)
    assert figures["gains"]["larger views"]["miou"] == pytest.approx(moved)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.safetensors")}
    assert ideas.main(words) == 0
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.safetensors")}
    logs = [tmp_path / "work" / "fold-1-of-3" / name / "log.jsonl" for name in ("base", "baseline")]
    first = [json.loads(log.read_text().splitlines()[0]) for log in logs]
    assert [record["options"]["fold"] for record in first] == ["1/3", "1/3"]
    assert first[1]["left_out"] == []


def test_gains_are_means_over_the_folds(scripts: dict[str, ModuleType]) -> None:
    def run(miou: float, fence: float | None) -> dict[str, object]:
        return {"miou": miou, "watched": {"Pole": miou, "Fence": fence}}

    results = {
        "1/4": {"base": run(30, 1), "baseline": run(40, 10), "ohem": run(42, 13)},
        "2/4": {"base": run(30, 1), "baseline": run(50, None), "ohem": run(51, 5)},
        "3/4": {"base": run(30, 1)},
    }
    assert scripts["train_ideas"].gains(results) == {"ohem": {"miou": 1.5, "Pole": 1.5, "Fence": 3.0}}


TOLD = ("miou", "pixel_accuracy", "iou", "pictures")


@pytest.fixture
def runs(recipe: Path, tmp_path: Path) -> list[Path]:
    """The weights that two runs wrote."""
    paths = [tmp_path / f"run-{seed}.safetensors" for seed in (0, 1)]
    for seed, path in enumerate(paths):
        choice = choose_network(recipe=str(recipe), random_seed=seed)
        halves = {name: value.half() for name, value in choice.network.state_dict().items() if value.is_floating_point()}
        save_weights(halves, path, {**weights_metadata(choice.recipe), "steps": "5", "miou": "{}"})
    return paths


def averaged(scripts: dict[str, ModuleType], recipe: Path, paths: list[Path], output: str = "mean.safetensors") -> int:
    folder = recipe.parent
    words = ["--root", str(folder / "data"), "--recipe", str(recipe), "--split", "val", "--threads", "1"]
    words += ["--output", str(folder / output), "--json", str(folder / "mean.json"), *map(str, paths)]
    words += ["--pictures", str(folder / "data" / "images" / "val" / "day_0.jpg")]
    status: int = scripts["train_average"].main(words)
    return status


def test_the_mean_of_two_runs(scripts: dict[str, ModuleType], recipe: Path, runs: list[Path]) -> None:
    assert averaged(scripts, recipe, runs) == 0
    figures = json.loads((recipe.parent / "mean.json").read_text())
    assert [run["steps"] for run in figures["runs"]] == ["5", "5"]
    assert [run["sha256"] for run in figures["runs"]] == [sha256(path.read_bytes()) for path in runs]
    assert sum(figures["mean"]["pictures"]["day_0.jpg"].values()) == pytest.approx(100, abs=0.1)
    assert figures["runs"][0]["miou"] != figures["runs"][1]["miou"]
    mean, (one, other) = load_file(recipe.parent / "mean.safetensors"), map(load_file, runs)
    assert mean.keys() == one.keys()
    for name, value in mean.items():
        assert value.dtype == np.float16
        np.testing.assert_array_equal(value, ((one[name].astype(float) + other[name]) / 2).astype(np.float16))
    said = read_metadata(recipe.parent / "mean.safetensors")
    assert said.keys() == read_metadata(runs[0]).keys() - {"steps", "miou"}


def test_the_mean_of_a_run_and_itself_scores_alike(scripts: dict[str, ModuleType], recipe: Path, runs: list[Path]) -> None:
    assert averaged(scripts, recipe, [runs[0], runs[0]]) == 0
    figures = json.loads((recipe.parent / "mean.json").read_text())
    assert {key: figures["mean"][key] for key in TOLD} == {key: figures["runs"][0][key] for key in TOLD}


def test_a_mean_of_one(scripts: dict[str, ModuleType], recipe: Path, runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert averaged(scripts, recipe, runs[:1]) == 1
    assert "two files" in capsys.readouterr().err
    assert not (recipe.parent / "mean.safetensors").exists()


def test_a_mean_that_would_replace_a_run(scripts: dict[str, ModuleType], recipe: Path, runs: list[Path]) -> None:
    there = runs[0].rename(recipe.parent / "mean.safetensors")
    before = there.read_bytes()
    assert averaged(scripts, recipe, [there, runs[1]]) == 1
    assert there.read_bytes() == before


@pytest.mark.parametrize("output", ["missing/mean.safetensors", "mean.pth", "mean.json"])
def test_a_mean_that_cannot_be_written(scripts: dict[str, ModuleType], recipe: Path, runs: list[Path], output: str) -> None:
    """It is refused before anything is scored."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scripts["train_average"], "evaluate", None)
        assert averaged(scripts, recipe, runs, output) == 1
