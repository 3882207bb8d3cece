"""doctor: libraries that work, are missing, are too old, crash or hang; and that what it asks for is what the project requires."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from email.message import Message
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from rtformer_deploy import machine
from rtformer_deploy.commands import checks, doctor
from rtformer_deploy.commands.checks import Check, Need, Package
from rtformer_deploy.commands.doctor import PACKAGES
from rtformer_deploy.commands.extras import FOR_DEVELOPERS, check_extras, project_extras


def check(
    trial: str, module: str = "json", wanted: str = "thing>=1", extra: str | None = None, patience: float = 60, known: bool = True
) -> Check:
    need = Need(Requirement(wanted), extra) if known else None
    return checks.check_package(Package("thing", module, "testing", trial), need, patience)


def test_a_library_that_works() -> None:
    assert check("print('1.2.3'); print('more')") == Check("Required packages", "thing", "ok", "1.2.3, more")


def test_a_library_that_is_missing_is_broken_or_optional() -> None:
    required = check("", module="no_such_module_here")
    assert (required.state, required.fix) == ("broken", "pip install rtformer-deploy")
    optional = check("", module="no_such_module_here.inside", extra="gpu")
    assert (optional.state, optional.fix) == ("missing", "pip install 'rtformer-deploy[gpu]'")


def test_a_library_that_is_too_old() -> None:
    found = check("print('1.9.9+cpu')", wanted="thing[cu13]>=2.6; extra == 'gpu'")
    assert (found.state, found.detail) == ("broken", "1.9.9+cpu, but thing[cu13]>=2.6 is needed")
    assert found.fix == "pip install --upgrade 'thing[cu13]>=2.6'"


@pytest.mark.parametrize("version", ["2.6", "2.6.0+cpu", "2.10", "3.0.dev1"])
def test_a_library_that_is_new_enough(version: str) -> None:
    assert check(f"print({version!r})", wanted="thing>=2.6").state == "ok"


def test_a_version_that_is_none_is_not_new_enough() -> None:
    assert check("print('unknown')").state == "broken"


def test_without_a_known_requirement_any_version_is_fine_and_nothing_is_required() -> None:
    assert check("print('0.1')", known=False) == Check("Libraries", "thing", "ok", "0.1")
    missing = check("", module="no_such_module_here", known=False)
    assert (missing.state, missing.fix) == ("missing", "pip install thing")


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
    """Each one is named in pyproject.toml, and each that every install needs is one of doctor's."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    required = {Requirement(line).name for line in project["dependencies"]}
    extras = {Requirement(line).name for lines in project["optional-dependencies"].values() for line in lines}
    ours = {package.name: set(package.distributions or (package.name,)) for package in PACKAGES}
    for name, distributions in ours.items():
        assert distributions <= required | extras, name
    assert required <= set().union(*ours.values())
    assert set(project["optional-dependencies"]) >= FOR_DEVELOPERS


def test_an_extra_is_there_if_all_that_it_brings_works(monkeypatch: pytest.MonkeyPatch) -> None:
    described(
        monkeypatch,
        "numpy>=1.26",
        "cuda-core[cu13]>=1.0; extra == 'gpu'",
        "nvidia-ml-py>=12; extra == 'gpu'",
        "nothing>=1; extra == 'gpu' and sys_platform == 'nowhere'",
    )
    brought = {"gpu": project_extras()["gpu"]}
    assert brought == {"gpu": ["cuda-core", "nvidia-ml-py"]}
    packages = [Package("cuda-core", "cuda.core", "testing", "")]

    def found(state: checks.State, installed: set[str]) -> Check:
        [check] = check_extras(brought, packages, [Check("Optional packages", "cuda-core", state, "")], installed)
        return check

    what = "testing"
    install = "pip install 'rtformer-deploy[gpu]'"
    assert found("ok", {"nvidia-ml-py"}) == Check("Extras", "gpu", "ok", f"{what}; cuda-core, nvidia-ml-py")
    assert found("ok", set()) == Check("Extras", "gpu", "missing", f"{what}; not installed: nvidia-ml-py", install)
    assert found("missing", set()) == Check("Extras", "gpu", "missing", f"{what}; not installed: cuda-core, nvidia-ml-py", install)
    assert found("broken", set()) == Check("Extras", "gpu", "broken", f"{what}; broken: cuda-core; not installed: nvidia-ml-py")


def described(monkeypatch: pytest.MonkeyPatch, *requirements: str) -> None:
    """Metadata of an installed rtformer-deploy with the extras gpu and dev."""
    text = Message()
    for extra in ("gpu", "dev"):
        text["Provides-Extra"] = extra
    for line in requirements:
        text["Requires-Dist"] = line
    monkeypatch.setattr(checks, "metadata", lambda name: text)


def test_the_requirements_are_those_of_the_installed_project(monkeypatch: pytest.MonkeyPatch) -> None:
    described(
        monkeypatch,
        "numpy>=1.26",
        "onnxruntime-gpu>=1.19; sys_platform == 'nowhere'",
        "onnxruntime>=1.19; sys_platform != 'nowhere'",
        "cuda-core[cu13]>=1.0; extra == 'gpu'",
        "cuda-core[cu13]>=1.0; extra == 'dev'",
    )
    needs = checks.project_needs()
    assert {name: (need.text, need.extra) for name, need in needs.items()} == {
        "numpy": ("numpy>=1.26", None),
        "onnxruntime": ("onnxruntime>=1.19", None),
        "cuda-core": ("cuda-core[cu13]>=1.0", "gpu"),
    }
    onnxruntime = next(package for package in PACKAGES if package.name == "onnxruntime")
    assert checks.need_of(onnxruntime, needs) is needs["onnxruntime"]
    assert checks.need_of(Package("other", "other", "testing", ""), needs) is None


def test_a_checkout_that_is_not_installed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(checks, "metadata", nothing)
    found, needs = doctor._itself()
    assert (found.state, found.fix, needs) == ("missing", "pip install -e .", {})
    assert "not installed" in found.detail
    assert "not checked" in found.detail


def test_the_machine_is_described() -> None:
    found = machine.environment()
    assert found["cpu"]
    assert found["cores_usable"] >= 1
    assert found["ram_gb"] > 0
    assert "numpy" in found["packages"]
    assert 0 < machine.resident_mb() <= machine.peak_mb() * 1.05


def test_two_generations_of_one_name_are_two_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Virtual machines call several processors "AMD EPYC", with and without AVX-512."""
    told = []
    for flags in ("fpu avx2 fma", "fpu avx2 fma avx512f avx512_vnni"):
        monkeypatch.setattr(machine, "_cpuinfo", lambda flags=flags: {"model name": "AMD EPYC", "flags": flags})
        told.append((machine.cpu_and_features(), machine.environment()["cpu_features"], doctor._cpu().detail.partition("; ")[2]))
    assert told == [
        ("AMD EPYC avx2", ["avx2"], "avx2 (256-bit vectors)"),
        (
            "AMD EPYC avx2 avx512f avx512_vnni",
            ["avx2", "avx512f", "avx512_vnni"],
            "avx2 (256-bit vectors), avx512f (512-bit vectors), avx512_vnni (INT8)",
        ),
    ]


def test_it_answers_where_nothing_is_installed(root: Path) -> None:
    """doctor itself needs the standard library alone, and says what it cannot find out without the rest."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from rtformer_deploy.commands import checks, doctor\n"
        "checks.metadata = lambda name: None\n"
        "print(doctor._itself()[0].fix, doctor._python().state)"
    )
    done = subprocess.run([sys.executable, "-S", "-I", "-c", code, str(root)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "pip install packaging ok", done.stderr


@pytest.mark.slow
def test_this_machine_is_examined() -> None:
    found = {check.name: check for check in doctor.examine()}
    assert found["numpy"].state == "ok"
    assert found["openvino"].state == "ok"
    assert "CPU" in found["onnxruntime"].detail
    assert found["pre- and post-processing"].state in {"ok", "missing"}
    assert found["default backend"].state == "ok"
    assert found["NVIDIA GPU"].state in {"ok", "missing"}
    assert {check.state for check in found.values()} <= {"ok", "missing", "broken"}
