"""The page docs/own-data.md, walked as it stands: its files written, its commands run, each from a folder of its own.

The network is a small one under the name of the page's recipe: exporting RTFormer takes many seconds, and other tests do it.
"""

from __future__ import annotations

import json
import re
import shlex
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from page_network import TINY
from PIL import Image

from rtformer_deploy.cli import main
from rtformer_deploy.datasets import open_dataset
from rtformer_deploy.formats.recipe import load_recipe
from rtformer_deploy.nn import ARCHITECTURES

RECIPE = "rtformer-slim-camvid"
#: What makes a command quick; the last one of two equal options counts.
QUICK = {
    "train": ["--steps", "1", "--batch", "2", "--size", "64x96", "--threads", "1"],
    "evaluate": ["--threads", "1"],
    "build-engine": ["--backend", "onnxruntime", "--threads", "1"],
    "segment": ["--threads", "1"],
}
#: The options of these commands that take a path, beside their arguments.
PATHS = {"--recipe", "--dataset", "--root", "--output", "--weights"}


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    return (root / "docs" / "own-data.md").read_text()


def blocks(page: str, kind: str) -> list[str]:
    return [text for language, text in re.findall(r"^```(\w*)\n(.*?)^```", page, re.DOTALL | re.MULTILINE) if language == kind]


def commands(page: str) -> list[list[str]]:
    lines = [line for block in blocks(page, "") for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("rtformer-deploy ")]


@pytest.fixture(scope="module")
def folder(page: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's files: two pictures a split, wet at the bottom, and photographs."""
    folder = tmp_path_factory.mktemp("own")
    ids = np.repeat(np.array([0, 1], np.uint8), 24)[:, None].repeat(64, 1)
    frame = np.where(ids[..., None] == 1, (40, 90, 160), (130, 120, 110)).astype(np.uint8)
    for split in ("train", "val"):
        for name in ("0001", "0002"):
            for half, suffix, content in (("images", "jpg", frame), ("labels", "png", ids)):
                path = folder / "mine" / half / split / f"{name}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(content).save(path)
    dataset, _, recipe = blocks(page, "toml")
    (folder / "mine" / "mine.toml").write_text(dataset)
    (folder / "mine" / "recipe.toml").write_text(recipe)
    (folder / "tiny.toml").write_text(f'name = "{RECIPE}"\ndataset = "camvid"\n[architecture]\nname = "tiny"\n[input]\nsize = [48, 64]\n')
    (folder / "photographs").mkdir()
    Image.fromarray(frame).save(folder / "photographs" / "street.jpg")
    return folder


def moved(words: list[str], folder: Path) -> list[str]:
    """A command's words with the page's paths made absolute, and the small network's recipe for the page's."""
    words = ["tiny.toml" if word == RECIPE else word for word in words]
    places = [word in PATHS for word in ("", *words)]
    return [str(folder / word) if path or word in ("mine.onnx", "mine.plan", "photographs") or word.startswith("run/") else word
            for word, path in zip(words, places, strict=False)]  # fmt: skip


def test_the_way_of_two_classes_of_ones_own(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARCHITECTURES, "tiny", TINY)
    output: dict[str, str] = {}
    way = commands(page)[:5]
    assert [words[0] for words in way] == ["train", "evaluate", "export", "build-engine", "segment"]
    for name, *words in way:
        elsewhere = folder / f"for-{name}"
        elsewhere.mkdir()
        with chdir(elsewhere):
            result = CliRunner().invoke(main, [name, *moved(words, folder), *QUICK.get(name, [])])
        assert result.exit_code == 0, result.output
        assert list(elsewhere.iterdir()) == []
        output[name] = result.output

    assert re.search(r"^dry .*\n^wet ", output["evaluate"], re.MULTILINE)
    assert "ids were compared" not in output["evaluate"]
    assert f"The weights say what they are: {RECIPE}, 2 classes." in output["export"]
    spec = json.loads((folder / "mine.plan.json").read_text())["spec"]
    assert (spec["classes"], spec["palette"]) == (["dry", "wet"], [[128, 64, 128], [0, 130, 200]])
    assert spec["input"]["shape"] == [1, 3, 64, 96]
    assert re.search(r"\b(dry|wet)\b", output["segment"])
    labels = np.asarray(Image.open(folder / "segmented" / "street_labels.png"))
    assert labels.shape == (48, 64)
    assert labels.max() <= 1


def test_the_other_commands_are_what_the_tool_takes(page: str, folder: Path) -> None:
    names = set()
    for name, *words in commands(page):
        command = main.get_command(main.make_context("rtformer-deploy", ["--help"], resilient_parsing=True), name)
        assert command is not None
        command.make_context(name, words)  # raises UsageError for an option that it does not take
        names.add(name)
    assert names == {"train", "evaluate", "export", "build-engine", "segment"}


def test_the_pages_files_say_what_it_says(page: str, folder: Path) -> None:
    dataset, mapping, _ = blocks(page, "toml")
    recipe = load_recipe(str(folder / "mine" / "recipe.toml"))
    shipped = load_recipe(RECIPE)
    assert (recipe.name, recipe.labels.names, recipe.size) == ("mine-slim", ("dry", "wet"), shipped.size)
    assert (recipe.mean, recipe.std) == (shipped.mean, shipped.std)
    (folder / "mine" / "binary.toml").write_text(dataset + mapping)
    lookup = open_dataset(str(folder / "mine" / "binary.toml"), folder / "mine", "val").meaning.lookup
    assert (lookup[0], lookup[255], lookup[1]) == (0, 1, 255)


def test_the_pages_messages_are_the_tools(page: str, root: Path) -> None:
    """Each message in the table is in the sources, but for what stands in for names and numbers."""
    sources = " ".join(path.read_text() for path in (root / "rtformer_deploy").rglob("*.py"))
    sources = re.sub(r'"\s*\n\s*f?"', "", sources)  # texts over several lines
    messages = re.findall(r"^\| `(.+?)` \|", page.partition("## If it does not work")[2], re.MULTILINE)
    assert len(messages) == 8
    for message in messages:
        parts = re.split(r"\.\.\.|\d+x\d+|\d+|'train'|learn", message)
        assert [part for part in parts if len(part.strip()) > 3 and part.strip(" ,") not in sources] == [], message
