"""The compiled loops under AddressSanitizer and UndefinedBehaviorSanitizer: thousands of calls, right and wrong, without a report."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

FLAGS = ["-std=c++17", "-O1", "-g", "-ffp-contract=off", "-fno-omit-frame-pointer", "-shared", "-fPIC", "-pthread"]
SANITISERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
#: NumPy and Python leave blocks behind on purpose; a size that cannot be had is a std::bad_alloc, as without the sanitiser.
ASAN = "detect_leaks=0:allocator_may_return_null=1:halt_on_error=1:abort_on_error=0"


def compiler() -> str:
    """A C++ compiler whose sanitisers a Python can be started with; skips by name if there is none."""
    found = shutil.which(os.environ.get("CXX", "g++"))
    if found is None:
        pytest.skip("needs a C++ compiler: g++, or the one in CXX")
    if not sys.platform.startswith("linux"):
        pytest.skip("the sanitisers' library is preloaded as Linux does it")
    return found


def library(cxx: str, name: str) -> str:
    path = subprocess.run([cxx, f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
    if not Path(path).is_file():
        pytest.skip(f"{cxx} comes without {name}")
    return str(Path(path).resolve())


@pytest.fixture(scope="module")
def sanitised(tmp_path_factory: pytest.TempPathFactory, root: Path) -> tuple[Path, str]:
    """The folder of a `_native` with sanitisers, and what to preload."""
    cxx = compiler()
    preload = " ".join(library(cxx, name) for name in ("libasan.so", "libubsan.so", "libstdc++.so.6"))
    folder = tmp_path_factory.mktemp("native")
    include = [f"-I{sysconfig.get_paths()['include']}", f"-I{root / 'plugins'}"]
    source = root / "rtformer_deploy" / "image" / "_native.cpp"
    command = [cxx, *FLAGS, *SANITISERS, "-DPy_LIMITED_API=0x030B0000", *include, str(source), "-o", str(folder / "_native.so")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode and ("Python.h" in done.stderr or "sanitize" in done.stderr or "cannot find -l" in done.stderr):
        pytest.skip(f"{cxx} cannot compile it with sanitisers: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return folder, preload


@pytest.mark.slow
def test_the_compiled_loops_stay_within_their_buffers(sanitised: tuple[Path, str], root: Path) -> None:
    folder, preload = sanitised
    environment = {
        **os.environ,
        "LD_PRELOAD": preload,
        "ASAN_OPTIONS": ASAN,
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONPATH": str(root),
    }
    command = [sys.executable, str(root / "tests" / "image" / "sanitised.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)
    assert "runtime error" not in done.stderr, done.stderr
    assert "AddressSanitizer" not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 3000
