"""A network is added by one file, one row and its recipes: a test adds one, and nothing else in the project knows a network by name."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from helpers import frames, load_file

from rtformer_deploy.cli import main
from rtformer_deploy.commands.inspect import describe
from rtformer_deploy.errors import RecipeError
from rtformer_deploy.formats.recipe import recipe_names
from rtformer_deploy.nn import ARCHITECTURES, build_network
from rtformer_deploy.nn.weights import load_into, load_weights
from rtformer_deploy.opening import open_any

NETWORK = '''
"""Two convolutions, a quarter of the size, and a side head while training."""
from dataclasses import dataclass
from typing import Annotated

import torch
from msgspec import Meta

from rtformer_deploy.nn.architecture import Architecture, Auxiliary


@dataclass(frozen=True, slots=True)
class NovelConfig:
    width: Annotated[int, Meta(ge=4, le=64)] = 8
    drop: float = 0.0

    def check(self):
        pass


class Novel(torch.nn.Module):
    def __init__(self, classes, *, width=8, drop=0.0, aux=True):
        super().__init__()
        self.body = torch.nn.Conv2d(3, width, 4, 4)
        self.norm = torch.nn.BatchNorm2d(width)
        self.last = torch.nn.Conv2d(width, classes, 1)
        self.side = torch.nn.Conv2d(width, classes, 1) if aux else None

    def forward(self, x):
        x = torch.relu(self.norm(self.body(x)))
        return (self.last(x), self.side(x)) if self.training and self.side is not None else self.last(x)


def translate(state, config):
    return {key.removeprefix("theirs."): value for key, value in state.items()}


ARCHITECTURE = Architecture(
    name="novel",
    network=Novel,
    config=NovelConfig,
    classifier="last.weight",
    auxiliaries=(Auxiliary("side"),),
    aux=("side.",),
    training_only=frozenset({"drop"}),
    stride=4,
    step=12,
    translate=translate,
)
'''
RECIPE = 'name = "novel-camvid"\ndataset = "camvid"\n[architecture]\nname = "novel"\nwidth = 16\n[input]\nsize = [48, 72]\n'


@pytest.fixture
def novel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file, its row and its recipe; the folder they are in."""
    (tmp_path / "novel.py").write_text(NETWORK)
    (tmp_path / "novel.toml").write_text(RECIPE)
    monkeypatch.setitem(ARCHITECTURES, "novel", load_file(tmp_path / "novel.py").ARCHITECTURE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> str:
    result = CliRunner().invoke(main, list(words))
    assert result.exit_code == 0, result.output
    return result.output


def test_a_network_in_a_file_of_its_own_goes_the_whole_way(novel: Path) -> None:
    network = build_network({"name": "novel", "width": 16}, 11)
    torch.save({f"theirs.{key}": value for key, value in network.state_dict().items()}, "theirs.pth")
    assert "11 classes" in run("import-weights", "theirs.pth", "--recipe", "novel.toml", "-o", "novel.safetensors")
    facts = describe(novel / "novel.safetensors").facts
    assert facts["model"]["architecture"] == {"name": "novel", "width": 16}
    without = {key: value for key, value in load_weights(novel / "novel.safetensors").items() if not key.startswith("side.")}
    load_into(network, without, "novel")  # what only training uses may be missing

    assert "no pixel changes class" in run("export", "--weights", "novel.safetensors", "-o", "novel.onnx", "--size", "72x96")
    facts = describe(novel / "novel.onnx").facts
    assert facts["graph"]["custom_nodes"] == 0
    assert facts["tensors"] == {"input input": "float32 1x3x72x96", "output logits": "float32 1x11x18x24"}
    assert facts["model"]["architecture"] == {"name": "novel", "width": 16}

    run("build-engine", "novel.onnx", "--backend", "onnxruntime", "--threads", "1", "-o", "novel.plan")
    assert describe(novel / "novel.plan").facts["model"]["name"] == "novel-camvid"
    assert json.loads(run("inspect", "novel.plan", "--json"))["tensors"]["output logits"] == "float32 1x11x18x24"
    (frame,) = frames((50, 60))
    with open_any(novel / "novel.plan", threads=1) as engine, open_any(novel / "novel.safetensors", threads=1) as same:
        assert engine.run([frame])[0].shape == same.run([frame])[0].shape == frame.shape[:2]


def test_sizes_that_it_does_not_take_are_refused_before_the_export(novel: Path) -> None:
    words = ["export", "--recipe", "novel.toml", "--random-weights", "-o", "novel.onnx"]
    result = CliRunner().invoke(main, [*words, "--size", "64x96"])
    assert result.exit_code == 1
    assert "novel takes heights and widths that are multiples of 12, and 64x96 is not." in result.output
    assert "The nearest size is 60x96." in result.output
    assert "Exporting" not in result.output
    (novel / "novel.toml").write_text(RECIPE.replace("[48, 72]", "[50, 72]"))
    result = CliRunner().invoke(main, words)
    assert "multiples of 12, and 50x72 is not" in result.output
    assert not (novel / "novel.onnx").exists()


def test_an_option_that_it_does_not_have_is_named() -> None:
    with pytest.raises(RecipeError, match=r"The architecture stdc does not take this configuration: .*planes"):
        build_network({"name": "stdc", "planes": 3}, 2)


def test_no_other_file_knows_a_network_by_name(root: Path) -> None:
    """Only nn/ does, beside the recipes. The project and the domain of its operators are called after the first network."""
    first, *others = ARCHITECTURES
    keys = {key.split(".")[0] for row in ARCHITECTURES.values() for key in (row.classifier, *row.aux)}
    words = re.compile("|".join(rf"\b{word}\b" for word in (*others, *sorted(keys))), re.IGNORECASE)
    recipes = re.compile("|".join(sorted(recipe_names(), reverse=True)))  # as examples in help texts
    found = []
    for path in sorted((root / "rtformer_deploy").rglob("*.py")):
        if path.parent.name != "nn":
            for line, text, is_name in mentions(ast.parse(path.read_text())):
                if words.search(recipes.sub("", text)) or (text.lower() == first and (is_name or "DOMAIN" not in line)):
                    found.append(f"{path.relative_to(root)}: {line}: {text}")
    assert found == []


def mentions(tree: ast.Module) -> Iterator[tuple[str, str, bool]]:
    """The names in a module and its texts, but for docstrings: the code around it, the name or text, whether it is a name."""
    documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for statement in ast.walk(tree):
        for node in ast.iter_child_nodes(statement):
            line = ast.unparse(statement)[:60] if isinstance(statement, ast.Assign) else type(statement).__name__
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
                yield line, node.value, False
            for field in ("id", "attr", "name", "module", "arg"):
                if isinstance(name := getattr(node, field, None), str):
                    yield from ((line, part, True) for part in name.split("."))
