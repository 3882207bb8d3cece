"""The house rules that a machine can check: where things are, what the wheel carries, what the help says.

Who may import whom is checked by import-linter (`make lint`).
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rtformer_deploy.backends import BACKENDS
from rtformer_deploy.cli.group import COMMANDS

PACKAGE = "rtformer_deploy"
#: Where heavy packages are at home; elsewhere they may be imported inside functions only.
HOMES = {
    "torch": {"nn", "export", "training", "backends/torch"},
    "av": {"stream"},
    "tensorrt": set(),
    "tensorrt_rtx": set(),
    "matplotlib": {"pictures"},
    "jinja2": {"pictures"},
}


def sources(root: Path) -> list[Path]:
    return sorted(path.relative_to(root) for path in (root / PACKAGE).rglob("*.py"))


def rooms(root: Path) -> list[Path]:
    """The package's folders of modules, those inside them too."""
    return sorted({path.parent for path in sources(root)} - {Path(PACKAGE)})


def imported(path: Path) -> set[str]:
    """The modules that a file imports from this package, wherever in the file, as they are written: "..commands.doctor"."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom) and node.level]
    return {"." * node.level + (node.module or "") for node in nodes}


def test_few_doors_stand_at_the_top(root: Path) -> None:
    """Whoever opens the package sees rooms; what is not in one is used by nearly all of them."""
    modules = [path.name for path in sources(root) if path.parent == Path(PACKAGE)]
    assert len(modules) <= 12, modules


def test_every_room_says_what_it_is_for(root: Path) -> None:
    undescribed = [str(room) for room in rooms(root) if not described(root / room / "__init__.py")]
    assert undescribed == []


def described(path: Path) -> bool:
    return path.is_file() and ast.get_docstring(ast.parse(path.read_text())) is not None


def test_the_map_shows_every_room_at_its_level(root: Path) -> None:
    """The table in docs/architecture.md is the table of import-linter, and neither names what is not there."""
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", (root / "docs" / "architecture.md").read_text(), re.MULTILINE)
    (contract,) = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    levels = [set(layer.split(" | ")) for layer in reversed(contract["layers"])]
    assert {name: int(level) for level, name in rows} == {name: level for level, names in enumerate(levels, 1) for name in names}
    there = {path.stem for path in (root / PACKAGE).glob("*.py")} | {room.name for room in rooms(root) if room.parent == Path(PACKAGE)}
    assert {name for _, name in rows} == there - {"__init__"}


def test_a_backend_is_a_row_and_a_folder_with_the_same_parts(root: Path) -> None:
    for row in BACKENDS.values():
        folder = root / PACKAGE / "backends" / row.folder
        assert {"build.py", "run.py", "layers.py"} <= {path.name for path in folder.iterdir()}, row.name
    text = (root / "docs" / "architecture.md").read_text()
    assert [room.name for room in rooms(root) if room.parent.name == "backends" and f"`{room.name}`" not in text] == []


def test_every_path_on_the_map_is_there(root: Path) -> None:
    words = re.findall(r"`([\w/.]+)`", (root / "docs" / "architecture.md").read_text())
    paths = {word for word in words if "/" in word or word.endswith((".py", ".toml"))}
    paths = {path for path in paths if not re.search("NAME|RECIPE", path)}
    assert len(paths) > 20
    assert [path for path in sorted(paths) if not (root / path).exists() and not (root / PACKAGE / path).exists()] == []


def test_a_command_calls_what_is_named_as_it(root: Path) -> None:
    """commands/NAME.py belongs to cli/NAME.py; what else is in commands/ is a part of one of them."""
    names = {module for module, _ in COMMANDS.values()}
    commands = {path.stem for path in sources(root) if path.parent == Path(PACKAGE) / "commands"} - {"__init__"}
    not_called = [name for name in commands & names if f"..commands.{name}" not in imported(root / PACKAGE / "cli" / f"{name}.py")]
    assert not_called == []
    used = set().union(*(imported(root / PACKAGE / "commands" / f"{name}.py") for name in commands))  # a part may have parts
    assert [name for name in commands - names if f".{name}" not in used] == []


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


def test_the_version_is_the_same_everywhere(root: Path) -> None:
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nversion: {version}\n" in (root / "CITATION.cff").read_text()
    assert re.search(rf"^## {re.escape(version)}\b", (root / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_every_command_has_a_module_and_a_help(root: Path) -> None:
    for module, line in COMMANDS.values():
        assert (root / PACKAGE / "cli" / f"{module}.py").is_file()
        assert line.endswith(".")


def test_tracked_files_name_no_machine(root: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=False).stdout
    if not listed:
        pytest.skip("not a git checkout")
    pattern = re.compile(r"(^|[^A-Za-z0-9_./-])/(" + "|".join(["work", "root", "home"]) + ")/")
    wrong = []
    for name in filter(None, listed.split("\0")):
        path = root / name
        if path.is_file() and path.suffix not in {".jpg", ".png", ".webp", ".mp4", ".safetensors"}:
            wrong += [f"{name}: {line.strip()[:80]}" for line in path.read_text(errors="ignore").splitlines() if pattern.search(line)]
    assert wrong == []


def test_no_file_has_grown_out_of_its_idea(root: Path) -> None:
    long = {str(path): lines for path in sources(root) if (lines := len((root / path).read_text().splitlines())) > 350}
    assert long == {}
