"""Every Python block in README and docs compiles, imports what there is and uses public names; the library's ten lines run."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from pathlib import Path
from typing import Any

import cv2
import pytest
from docs_pages import ROOT, SHOWN, Block, blocks

import rtformer_deploy
from rtformer_deploy.image.samples import sample_photograph

BLOCKS = [block for page in SHOWN for block in blocks(page) if block.language == "python"]
#: Packages that the pages use and the tests do without.
ELSEWHERE = {"pycuda", "tritonclient"}


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_compiles_and_uses_names_that_exist(block: Block) -> None:
    tree = ast.parse(block.text, str(block))
    compile(tree, str(block), "exec")
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert all(is_there(alias.name) for alias in node.names), ast.unparse(node)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            assert is_there(node.module), ast.unparse(node)
            assert node.module.split(".")[0] in ELSEWHERE or all(
                hasattr(importlib.import_module(node.module), alias.name) for alias in node.names
            ), ast.unparse(node)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "rd":
            assert node.attr in rtformer_deploy.__all__, ast.unparse(node)


def is_there(module: str) -> bool:
    return module.split(".")[0] in ELSEWHERE or importlib.util.find_spec(module) is not None


def test_the_reference_names_every_public_name_once() -> None:
    named = [line.split(".")[-1] for line in (ROOT / "docs" / "api.md").read_text().splitlines() if line.startswith("::: ")]
    assert sorted(named) == sorted({*rtformer_deploy.__all__, "errors"} - {"DeployError"})  # it is in the page of errors


def test_ten_lines_of_library_use(root: Path, tmp_path: Path) -> None:
    code = blocks(root / "docs" / "library.md")[0].text
    names: dict[str, Any] = {"folder": tmp_path, "photograph": sample_photograph()}
    exec(compile(code, "docs/library.md", "exec"), names)
    assert names["labels"].shape == (600, 800)
    overlay = cv2.imread(str(tmp_path / "overlay.png"))
    assert overlay is not None
    assert overlay.shape == (600, 800, 3)
    assert sum(1 for line in code.splitlines() if line.strip() and not line.startswith("import")) <= 10
