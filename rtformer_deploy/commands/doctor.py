"""This machine to a list of checks: what works, what is missing, what is broken, and the command that mends it.

Imports the standard library alone, so that it answers where anything else is damaged. What it says works was really imported and
called, in a process of its own with a time limit: a library that crashes or hangs is a finding, not the end of the report.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, distributions, version
from importlib.util import find_spec
from typing import Any, Literal

from .. import machine

State = Literal["ok", "missing", "broken"]

#: Seconds a library may take to answer; a first import from a cold disk is slow.
PATIENCE_S = 90.0


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `missing` is something optional that is not there; `fix` is the command or sentence that mends it."""

    group: str
    name: str
    state: State
    detail: str
    fix: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Package:
    """A library: its module, the extra that brings it (None: every install), the oldest version, what for, and how to try it.

    `requirement` is what pip takes where that is not the name.
    `trial` is Python that prints the version on one line and, if there is more to say, that on a second.
    """

    name: str
    module: str
    minimum: tuple[int, ...]
    purpose: str
    trial: str
    extra: str | None = None
    requirement: str | None = None


def _plain(module: str) -> str:
    return f"import {module} as m; print(m.__version__)"


def _from_metadata(module: str, distribution: str) -> str:
    return f"import {module}; from importlib.metadata import version; print(version({distribution!r}))"


PACKAGES = (
    Package("click", "click", (8, 1), "the command line", _from_metadata("click", "click")),
    Package("numpy", "numpy", (1, 26), "everything", _plain("numpy")),
    Package("opencv-python-headless", "cv2", (4, 8), "resizing", _plain("cv2")),
    Package("pillow", "PIL", (10,), "decoding images", "import PIL.Image as m; print(m.__version__)"),
    Package("rich", "rich", (13,), "tables and progress", _from_metadata("rich.console", "rich")),
    Package("psutil", "psutil", (5, 9), "reading memory and cores", _plain("psutil")),
    Package("safetensors", "safetensors", (0, 4), "weights", _plain("safetensors")),
    Package("tomlkit", "tomlkit", (0, 13), "writing recipes", _plain("tomlkit")),
    Package("onnx", "onnx", (1, 16), "models", _plain("onnx")),
    Package("onnx-ir", "onnx_ir", (0, 1, 15), "models", _plain("onnx_ir")),
    Package("onnxsim", "onnxsim", (0, 4, 36), "simplifying models", _from_metadata("onnxsim", "onnxsim")),
    Package(
        "onnxruntime",
        "onnxruntime",
        (1, 19),
        "the reference and an engine",
        "import onnxruntime as m; print(m.__version__); "
        "print('built for: ' + ', '.join(name.removesuffix('ExecutionProvider') for name in m.get_available_providers()))",
    ),
    Package(
        "openvino",
        "openvino",
        (2024, 6),
        "the CPU engine",
        "import openvino as m; print(m.get_version().split('-')[0]); print('devices: ' + ', '.join(m.Core().available_devices))",
    ),
    Package(
        "torch",
        "torch",
        (2, 6),
        "export and training",
        "import torch as m; print(m.__version__); "
        "print(f'CUDA {m.version.cuda}, GPU usable: {m.cuda.is_available()}' if m.version.cuda else 'CPU build')",
        "export",
    ),
    Package("onnxscript", "onnxscript", (0, 5), "export", _plain("onnxscript"), "export"),
    Package("tensorrt", "tensorrt", (10, 0, 1), "TensorRT engines", "import tensorrt as m; m.Logger(); print(m.__version__)", "tensorrt"),
    Package(
        "tensorrt-rtx",
        "tensorrt_rtx",
        (1, 7),
        "TensorRT-RTX engines",
        "import tensorrt_rtx as m; m.Logger(); print(m.__version__)",
        "tensorrt-rtx",
    ),
    Package("cuda-core", "cuda.core", (1, 0), "running on the GPU", _plain("cuda.core"), "gpu", "cuda-core[cu13]"),
)

#: Distributions that bring the same module: the one installed last overwrites the other's files.
RIVALS = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml", "onnxruntime-training"),
}

#: CPU features that decide how fast an engine is: flag -> what it speeds up.
CPU_FLAGS = {
    "avx2": "256-bit vectors",
    "avx512f": "512-bit vectors",
    "avx512_vnni": "INT8",
    "avx_vnni": "INT8",
    "avx512_bf16": "BF16",
    "amx_int8": "INT8 tiles",
    "amx_bf16": "BF16 tiles",
    "asimd": "128-bit vectors",
    "sve": "scalable vectors",
    "i8mm": "INT8",
}


def examine(patience_s: float = PATIENCE_S) -> list[Check]:
    """Every check of this machine, group by group; the libraries are tried side by side."""
    tried: list[Callable[[], Check]] = [partial(_package, package, patience_s) for package in PACKAGES]
    tried += [partial(_native, patience_s), partial(_gpu, patience_s), partial(_default_backend, patience_s)]
    with ThreadPoolExecutor(max_workers=max(2, min(4, machine.usable_cores()))) as pool:
        later = [pool.submit(check) for check in tried]
        try:
            checks = [_python(), _itself(), _cpu(), *_rivals(_installed()), _nvcc()]
            checks += [one.result() for one in later]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C: start no further library
            raise
    order = ("System", "Required packages", "Extras", "GPU", "Engines")
    return sorted(checks, key=lambda check: order.index(check.group))


def _python() -> Check:
    return Check("System", "Python", "ok", f"{sys.version.split()[0]} on {machine.operating_system()}")


def _itself() -> Check:
    try:
        return Check("System", "rtformer-deploy", "ok", version("rtformer-deploy"))
    except PackageNotFoundError:
        return Check("System", "rtformer-deploy", "missing", "run from the sources, not installed", "pip install -e .")


def _cpu() -> Check:
    flags = machine.cpu_flags()
    found = [f"{flag} ({meaning})" for flag, meaning in CPU_FLAGS.items() if flag in flags]
    return Check("System", "CPU", "ok", f"{machine.cpu_name()}, {machine.usable_cores()} cores; {', '.join(found) or 'no flags listed'}")


def _installed() -> set[str]:
    """Names of the installed distributions, as PyPI writes them."""
    return {re.sub(r"[-_.]+", "-", name).lower() for name in (found.metadata["Name"] for found in distributions()) if name}


def _rivals(installed: Iterable[str]) -> list[Check]:
    """A broken check for each module that two installed distributions bring."""
    names = set(installed)
    checks = []
    for module, rivals in RIVALS.items():
        found = [name for name in rivals if name in names]
        if len(found) > 1:
            keep = "onnxruntime-gpu" if "onnxruntime-gpu" in found else found[0]
            detail = f"{' and '.join(found)} are installed over each other: both write the folder {module}, and which one runs is chance"
            fix = f"pip uninstall -y {' '.join(found)} && pip install {keep}"
            checks.append(Check("Required packages", f"one {module}", "broken", detail, fix))
    return checks


def _package(package: Package, patience_s: float) -> Check:
    """A library, really imported: ok, missing, too old, or broken with the last thing it said."""
    group = "Required packages" if package.extra is None else "Extras"
    install = f"pip install {'rtformer-deploy' if package.extra is None else repr(f'rtformer-deploy[{package.extra}]')}"
    if not _is_there(package.module):
        state: State = "broken" if package.extra is None else "missing"
        return Check(group, package.name, state, f"not installed; for {package.purpose}", install)
    done, output = _try(package.trial, patience_s)
    if not done:
        return Check(group, package.name, "broken", output, f"pip install --force-reinstall {_requirement(package)!r}")
    found, _, more = output.partition("\n")
    if _numbers(found) < package.minimum:
        detail = f"{found} is too old: {_requirement(package)} is needed"
        return Check(group, package.name, "broken", detail, f"pip install --upgrade {_requirement(package)!r}")
    return Check(group, package.name, "ok", ", ".join(filter(None, (found, more.strip()))))


def _native(patience_s: float) -> Check:
    code = "from rtformer_deploy import native; print(native.available()); print(native.description())"
    done, output = _try(code, patience_s)
    if not done:
        return Check("Engines", "pre- and post-processing", "broken", output, "pip install --force-reinstall rtformer-deploy")
    available, _, detail = output.partition("\n")
    if available == "True":
        return Check("Engines", "pre- and post-processing", "ok", detail)
    fix = "Install a C++ compiler (Debian: apt-get install g++), then: pip install --force-reinstall --no-deps rtformer-deploy"
    return Check("Engines", "pre- and post-processing", "missing", detail, fix)


def _gpu(patience_s: float) -> Check:
    code = (
        "from rtformer_deploy.gpu import gpus, why_none; print(len(gpus())); print(why_none() or '; '.join("
        "f'{g.index}: {g.name}, compute capability {g.compute_capability}, {g.memory_mib} MiB, "
        "driver for CUDA {g.driver}' for g in gpus()))"
    )
    done, output = _try(code, patience_s)
    if not done:
        return Check(
            "GPU",
            "NVIDIA GPU",
            "broken",
            output,
            "Run nvidia-smi: where it fails too, install the driver again (https://www.nvidia.com/drivers).",
        )
    count, _, detail = output.partition("\n")
    if count != "0":
        return Check("GPU", "NVIDIA GPU", "ok", detail)
    return Check("GPU", "NVIDIA GPU", "missing", f"{detail}; engines run on the CPU, TensorRT-RTX plans can be built ahead of time")


def _nvcc() -> Check:
    path = shutil.which("nvcc")
    if path is None:
        return Check("GPU", "nvcc", "missing", "not found; nothing here needs it (kernels are compiled by NVRTC, which cuda-core brings)")
    return Check("GPU", "nvcc", "ok", path)


def _default_backend(patience_s: float) -> Check:
    done, output = _try("from rtformer_deploy.build import choose_backend; print(*choose_backend(), sep='\\n')", patience_s)
    if not done:
        return Check("Engines", "default backend", "broken", output, "Mend what is broken above, then run rtformer-deploy doctor again.")
    backend, _, reason = output.partition("\n")
    return Check("Engines", "default backend", "ok", f"{backend}, because {reason.rstrip('.')}")


def _is_there(module: str) -> bool:
    """Whether the module can be found, without importing more than its parent."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _try(code: str, patience_s: float) -> tuple[bool, str]:
    """Runs Python in a process of its own: whether it went well, and what it printed or, if not, why in one line."""
    command = [sys.executable, "-P", "-c", code]  # -P: a file of the same name in this folder must not be imported
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience_s, check=False)
    except subprocess.TimeoutExpired:
        return False, f"did not answer within {patience_s:g} s"
    if done.returncode < 0:
        return False, f"crashed with signal {-done.returncode}"
    if done.returncode > 0:
        return False, _last_line(done.stderr.splitlines()) or f"exit code {done.returncode}"
    return True, done.stdout.strip()


def _last_line(lines: Sequence[str]) -> str:
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _requirement(package: Package) -> str:
    return f"{package.requirement or package.name}>={'.'.join(map(str, package.minimum))}"


def _numbers(text: str) -> tuple[int, ...]:
    """The release part of a version: 2.13.0+cpu -> (2, 13, 0)."""
    found = re.match(r"\d+(\.\d+)*", text.strip())
    return tuple(int(part) for part in found[0].split(".")) if found else ()
