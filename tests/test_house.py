"""The house rules that a machine can check: who may import whom, what the wheel carries, what the help and the README say."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rtformer_deploy.cli.group import COMMANDS

PACKAGE = "rtformer_deploy"
#: Where heavy packages are at home; elsewhere they may be imported inside functions only.
HOMES = {
    "torch": {"nn", "export", "training", "backends/torch"},
    "tensorrt": set(),
    "tensorrt_rtx": set(),
    "matplotlib": {"pictures"},
    "jinja2": {"pictures"},
}


def sources(root: Path) -> list[Path]:
    return sorted(path.relative_to(root) for path in (root / PACKAGE).rglob("*.py"))


def test_rooms_import_from_the_levels_below_their_own(root: Path) -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("package", HOMES)
def test_heavy_packages_stay_at_home(root: Path, package: str) -> None:
    wrong = []
    for path in sources(root):
        name = path.relative_to(PACKAGE).with_suffix("").as_posix()
        if any(name == home or name.startswith(home + "/") for home in HOMES[package]):
            continue
        for node in ast.parse((root / path).read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            wrong += [f"{path}: {found}" for found in names if found.split(".")[0] == package]
    assert wrong == []


def test_importing_the_package_loads_neither_torch_nor_tensorrt() -> None:
    heavy = (*HOMES, "onnxruntime", "openvino")
    code = f"import sys, rtformer_deploy; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_commands_load_matplotlib_only_when_they_draw() -> None:
    modules = [f"rtformer_deploy.cli.{module}" for module, _ in COMMANDS.values()]
    modules += [f"rtformer_deploy.commands.{name}" for name in ("evaluate", "export", "train", "tune", "verify")]
    code = f"import sys, {', '.join(modules)}; print([name for name in ('matplotlib', 'jinja2') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_the_wheel_carries_the_templates(root: Path) -> None:
    patterns = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["*"]
    others = [path for path in (root / PACKAGE / "pictures").iterdir() if path.suffix != ".py" and path.is_file()]
    assert others
    assert all(any(path.match(pattern) for pattern in patterns) for path in others)


def test_the_wheel_lists_every_package(root: Path) -> None:
    config = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {".".join(path.parent.parts) for path in sources(root)}
    assert found == {name for name in config if "_content" not in name}


def test_every_command_has_a_module_a_help_and_a_line_in_the_readme(root: Path) -> None:
    readme = (root / "README.md").read_text()
    for name, (module, line) in COMMANDS.items():
        assert (root / PACKAGE / "cli" / f"{module}.py").is_file()
        assert line.endswith(".")
        assert f"rtformer-deploy {name}" in readme, f"the README does not show {name}"


def test_tracked_files_name_no_machine(root: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=False).stdout
    if not listed:
        pytest.skip("not a git checkout")
    pattern = re.compile(r"(^|[^A-Za-z0-9_./-])/(" + "|".join(["work", "root", "home"]) + ")/")
    wrong = []
    for name in filter(None, listed.split("\0")):
        path = root / name
        if path.is_file() and path.suffix not in {".jpg", ".png", ".safetensors"}:
            wrong += [f"{name}: {line.strip()[:80]}" for line in path.read_text(errors="ignore").splitlines() if pattern.search(line)]
    assert wrong == []


def test_no_file_has_grown_out_of_its_idea(root: Path) -> None:
    long = {str(path): lines for path in sources(root) if (lines := len((root / path).read_text().splitlines())) > 350}
    assert long == {}
