"""doctor: findings about libraries that work, are missing, are too old, crash or hang; and that its list is the project's own."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rtformer_deploy import machine
from rtformer_deploy.commands import doctor
from rtformer_deploy.commands.doctor import PACKAGES, Check, Package


def check(trial: str, module: str = "json", minimum: tuple[int, ...] = (1,), extra: str | None = None, patience: float = 60) -> Check:
    return doctor._package(Package("thing", module, minimum, "testing", trial, extra), patience)


def test_a_library_that_works() -> None:
    assert check("print('1.2.3'); print('more')") == Check("Required packages", "thing", "ok", "1.2.3, more")


def test_a_library_that_is_missing_is_broken_or_optional() -> None:
    required = check("", module="no_such_module_here")
    assert (required.state, required.fix) == ("broken", "pip install rtformer-deploy")
    optional = check("", module="no_such_module_here.inside", extra="gpu")
    assert (optional.state, optional.fix) == ("missing", "pip install 'rtformer-deploy[gpu]'")


def test_a_library_that_is_too_old() -> None:
    found = check("print('1.9.9+cpu')", minimum=(2, 6))
    assert found.state == "broken"
    assert found.fix == "pip install --upgrade 'thing>=2.6'"


def test_a_library_that_fails_says_its_last_words() -> None:
    found = check("raise OSError('libcuda.so.1 is not there')")
    assert (found.state, found.detail) == ("broken", "OSError: libcuda.so.1 is not there")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals to die of")
def test_a_library_that_crashes() -> None:
    found = check("import os; os.abort()")
    assert (found.state, found.detail) == ("broken", "crashed with signal 6")


def test_a_library_that_hangs() -> None:
    found = check("import time; time.sleep(600)", patience=0.2)
    assert (found.state, found.detail) == ("broken", "did not answer within 0.2 s")


def test_a_file_of_the_same_name_in_this_folder_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "colorsys.py").write_text("raise RuntimeError('the wrong one')")
    monkeypatch.chdir(tmp_path)
    assert check("import colorsys; print('1.0')").state == "ok"


def test_two_onnxruntimes_over_each_other() -> None:
    [found] = doctor._rivals({"onnxruntime", "onnxruntime-gpu", "numpy"})
    assert found.state == "broken"
    assert found.fix == "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"
    assert doctor._rivals({"onnxruntime-gpu"}) == []


def test_every_library_is_one_of_the_projects(root: Path) -> None:
    """Names and oldest versions are those of pyproject.toml."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    wanted: dict[str, tuple[int, ...]] = {}
    for requirement in [*project["dependencies"], *(entry for extra in project["optional-dependencies"].values() for entry in extra)]:
        found = re.match(r"([\w.-]+)(?:\[[\w,]+\])?>=([\d.]+)", requirement)
        assert found, requirement
        wanted[found[1]] = tuple(int(part) for part in found[2].split("."))
    for package in PACKAGES:
        name = next(name for name in (package.name, f"{package.name}-cu13") if name in wanted)
        assert wanted[name] == package.minimum, package.name


def test_the_machine_is_described() -> None:
    found = machine.environment()
    assert found["cpu"]
    assert found["cores_usable"] >= 1
    assert found["ram_gb"] > 0
    assert "numpy" in found["packages"]
    assert 0 < machine.resident_mb() <= machine.peak_mb() * 1.05


def test_it_answers_where_nothing_is_installed(root: Path) -> None:
    """doctor itself needs the standard library alone."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import rtformer_deploy.commands.doctor; print('there')"
    done = subprocess.run([sys.executable, "-S", "-I", "-c", code, str(root)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "there", done.stderr


@pytest.mark.slow
def test_this_machine_is_examined() -> None:
    checks = {found.name: found for found in doctor.examine()}
    assert checks["numpy"].state == "ok"
    assert checks["openvino"].state == "ok"
    assert "CPU" in checks["onnxruntime"].detail
    assert {found.state for found in checks.values()} <= {"ok", "missing", "broken"}
