"""This machine to a list of checks: what works, what is missing, what is broken, and the command that fixes it.

What it calls "ok" was really imported and called (see `checks`). Which versions are needed is read from the installed project's own
metadata.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import PackageNotFoundError, distributions, version

from .. import machine
from .checks import Check, Need, Package, check_package, is_there, need_of, project_needs, run_function
from .extras import check_extras, project_extras

__all__ = ["Check", "examine"]

#: Seconds a library may take to answer; a first import from a cold disk is slow.
PATIENCE_S = 90.0

#: The groups of checks in the order of the report; "Libraries" are those whose requirement is not known.
GROUPS = ("System", "Libraries", "Required packages", "Extras", "Optional packages", "GPU", "Engines")


def _plain(module: str) -> str:
    return f"import {module} as m; print(m.__version__)"


def _from_metadata(module: str, distribution: str) -> str:
    return f"import {module}; from importlib.metadata import version; print(version({distribution!r}))"


def _provider(module: str, distribution: str) -> str:
    """A plug-in provider's library is only looked for: that of a GPU does not load on a machine without one."""
    return f"import {module} as m; m.get_library_path(); {_from_metadata(module, distribution)}"


PACKAGES = (
    Package("click", "click", "the command line", _from_metadata("click", "click")),
    Package("msgspec", "msgspec", "documents", _plain("msgspec")),
    Package("numpy", "numpy", "everything", _plain("numpy")),
    Package("opencv-python-headless", "cv2", "resizing", _plain("cv2")),
    Package("packaging", "packaging", "this report", _plain("packaging")),
    Package("pillow", "PIL", "decoding images", "import PIL.Image as m; print(m.__version__)"),
    Package("rich", "rich", "tables and progress", _from_metadata("rich.console", "rich")),
    Package("psutil", "psutil", "reading memory and cores", _plain("psutil")),
    Package("safetensors", "safetensors", "weights", _plain("safetensors")),
    Package("tomlkit", "tomlkit", "writing recipes", _plain("tomlkit")),
    Package("onnx", "onnx", "models", _plain("onnx")),
    Package("onnx-ir", "onnx_ir", "models", _plain("onnx_ir")),
    Package("onnxsim", "onnxsim", "simplifying models", _from_metadata("onnxsim", "onnxsim")),
    Package(
        "onnxruntime",
        "onnxruntime",
        "the reference and an engine",
        "import onnxruntime as m; print(m.__version__); "
        "print('built for: ' + ', '.join(name.removesuffix('ExecutionProvider') for name in m.get_available_providers()))",
        ("onnxruntime-gpu", "onnxruntime"),
    ),
    Package(
        "openvino",
        "openvino",
        "the CPU engine",
        "import openvino as m; print(m.get_version().split('-')[0]); print('devices: ' + ', '.join(m.Core().available_devices))",
    ),
    Package(
        "torch",
        "torch",
        "export and training",
        "import torch as m; print(m.__version__); "
        "print(f'CUDA {m.version.cuda}, GPU usable: {m.cuda.is_available()}' if m.version.cuda else 'CPU build')",
    ),
    Package("onnxscript", "onnxscript", "export", _plain("onnxscript")),
    Package("transformers", "transformers", "networks of transformers", _plain("transformers")),
    Package("tensorrt", "tensorrt", "TensorRT engines", "import tensorrt as m; m.Logger(); print(m.__version__)"),
    Package("pillow-heif", "pillow_heif", "HEIC images", _plain("pillow_heif")),
    Package("shapely", "shapely", "simpler polygons", _plain("shapely")),
    Package("av", "av", "videos, cameras and streams", "import av as m; print(m.__version__); print(f'FFmpeg {m.ffmpeg_version_info}')"),
    Package("fastapi", "fastapi", "the service", _plain("fastapi")),
    Package("uvicorn", "uvicorn", "the service", _plain("uvicorn")),
    Package("websockets", "websockets", "streams to the service", _plain("websockets")),
    Package("python-multipart", "python_multipart", "forms sent to the service", _plain("python_multipart")),
    Package("prometheus-client", "prometheus_client", "the service's figures", _from_metadata("prometheus_client", "prometheus-client")),
    Package("ray", "ray", "clusters", _plain("ray")),
    Package("matplotlib", "matplotlib", "pictures", _plain("matplotlib")),
    Package("jinja2", "jinja2", "the page of bench", _from_metadata("jinja2", "jinja2")),
    Package(
        "tensorrt-rtx",
        "tensorrt_rtx",
        "TensorRT-RTX engines",
        "import tensorrt_rtx as m; m.Logger(); print(m.__version__)",
        ("tensorrt-rtx-cu13",),
    ),
    Package("cuda-core", "cuda.core", "running on the GPU", _plain("cuda.core")),
    Package(
        "onnxruntime-ep-openvino",
        "onnxruntime_ep_openvino",
        "ONNX Runtime on OpenVINO in compare --formats",
        _provider("onnxruntime_ep_openvino", "onnxruntime-ep-openvino"),
    ),
    Package(
        "onnxruntime-ep-nv-tensorrt-rtx",
        "onnxruntime_ep_nv_tensorrt_rtx",
        "ONNX Runtime on TensorRT-RTX in compare --formats",
        _provider("onnxruntime_ep_nv_tensorrt_rtx", "onnxruntime-ep-nv-tensorrt-rtx"),
    ),
)

#: Distributions that bring the same module: the one installed last overwrites the other's files.
RIVALS = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml", "onnxruntime-training"),
}


def examine(patience_s: float = PATIENCE_S) -> list[Check]:
    """Every check of this machine, group by group; the libraries are tried side by side."""
    itself, needs = _itself()
    trials: list[Callable[[], Check]] = [partial(check_package, package, need_of(package, needs), patience_s) for package in PACKAGES]
    trials += [partial(_native, patience_s), partial(_gpu, patience_s), partial(_rtx, patience_s), partial(_default_backend, patience_s)]
    with ThreadPoolExecutor(max_workers=max(2, min(4, machine.usable_cores()))) as pool:
        futures = [pool.submit(check) for check in trials]
        try:
            installed = _installed()
            checks = [_python(), itself, _cpu(), *_rivals(installed), _nvcc()]
            checks += [one.result() for one in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C: start no further library
            raise
    if needs:
        checks += check_extras(project_extras(), PACKAGES, checks, installed)
    return sorted(checks, key=lambda check: GROUPS.index(check.group))


def _python() -> Check:
    return Check("System", "Python", "ok", f"{sys.version.split()[0]} on {machine.operating_system()}")


def _itself() -> tuple[Check, dict[str, Need]]:
    """This project's own check, and what it requires. If the requirements cannot be read, they are empty and the check says so."""
    name = "rtformer-deploy"
    try:
        needs = project_needs()
    except PackageNotFoundError:
        detail = "run from the sources and not installed: the versions it requires are unknown and not checked"
        return Check("System", name, "missing", detail, "pip install -e ."), {}
    except ImportError as error:
        detail = f"the versions it requires cannot be read and are not checked ({error})"
        return Check("System", name, "broken", detail, "pip install packaging"), {}
    return Check("System", name, "ok", version(name)), needs


def _cpu() -> Check:
    features = [f"{name} ({machine.CPU_FEATURES[name]})" for name in machine.cpu_features()]
    return Check("System", "CPU", "ok", f"{machine.cpu_name()}, {machine.usable_cores()} cores; {', '.join(features) or 'no flags listed'}")


def _installed() -> set[str]:
    """Names of the installed distributions, as PyPI writes them."""
    return {re.sub(r"[-_.]+", "-", name).lower() for name in (one.metadata["Name"] for one in distributions()) if name}


def _rivals(installed: Iterable[str]) -> list[Check]:
    """A broken check for each module that two installed distributions bring."""
    names = set(installed)
    checks = []
    for module, rivals in RIVALS.items():
        present = [name for name in rivals if name in names]
        if len(present) > 1:
            keep = "onnxruntime-gpu" if "onnxruntime-gpu" in present else present[0]
            detail = f"{' and '.join(present)} are installed over each other: both write the folder {module}, and which one runs is chance"
            fix = f"pip uninstall -y {' '.join(present)} && pip install {keep}"
            checks.append(Check("Required packages", f"one {module}", "broken", detail, fix))
    return checks


def _nvcc() -> Check:
    path = shutil.which("nvcc")
    if path is None:
        return Check("GPU", "nvcc", "missing", "not found; nothing here needs it (kernels are compiled by NVRTC, which cuda-core brings)")
    return Check("GPU", "nvcc", "ok", path)


def _native(patience_s: float) -> Check:
    name = "pre- and post-processing"
    answer = run_function(print_native, patience_s)
    if not answer.ok:
        return Check("Engines", name, "broken", answer.text, "pip install --force-reinstall rtformer-deploy")
    available, _, detail = answer.text.partition("\n")
    if available == "True":
        return Check("Engines", name, "ok", detail)
    fix = "Install a C++ compiler (Debian: apt-get install g++), then: pip install --force-reinstall --no-deps rtformer-deploy"
    return Check("Engines", name, "missing", detail, fix)


def _gpu(patience_s: float) -> Check:
    answer = run_function(print_gpus, patience_s)
    if not answer.ok:
        fix = "Run nvidia-smi: if it fails too, install the driver again (https://www.nvidia.com/drivers)."
        return Check("GPU", "NVIDIA GPU", "broken", answer.text, fix)
    count, _, detail = answer.text.partition("\n")
    if count != "0":
        return Check("GPU", "NVIDIA GPU", "ok", detail)
    return Check("GPU", "NVIDIA GPU", "missing", f"{detail}; engines run on the CPU, TensorRT-RTX plans can be built ahead of time")


def _rtx(patience_s: float) -> Check:
    """Whether TensorRT-RTX works on the GPUs here: NVIDIA does not promise it for every GPU."""
    name = "TensorRT-RTX on the GPU"
    if not is_there("tensorrt_rtx"):
        return Check("GPU", name, "missing", "tensorrt-rtx is not installed, so it was not tried")
    answer = run_function(print_rtx, patience_s)
    if not answer.ok:
        return Check("GPU", name, "broken", answer.text, "pip install --force-reinstall 'rtformer-deploy[tensorrt-rtx]'")
    state, _, detail = answer.text.partition("\n")
    if state == "refused":
        return Check("GPU", name, "missing", detail, "pip install 'rtformer-deploy[tensorrt,gpu]'")
    return Check("GPU", name, "ok" if state == "ok" else "missing", detail)


def _default_backend(patience_s: float) -> Check:
    answer = run_function(print_default_backend, patience_s)
    if not answer.ok:
        return Check(
            "Engines", "default backend", "broken", answer.text, "Fix what is broken above, then run rtformer-deploy doctor again."
        )
    backend, _, reason = answer.text.partition("\n")
    return Check("Engines", "default backend", "ok", f"{backend}, because {reason.rstrip('.')}")


# These functions run in a separate process. Each prints one line for the program and one for the user.


def print_native() -> None:
    """Whether pre- and post-processing are compiled code, and what they run in."""
    from ..image import native

    print(native.available(), native.description(), sep="\n")


def print_gpus() -> None:
    """How many GPUs there are, and which, or why none."""
    from ..nvidia.driver import gpus, why_none

    listed = "; ".join(
        f"{gpu.index}: {gpu.name}, compute capability {gpu.compute_capability}, {gpu.memory_mib} MiB, driver for CUDA {gpu.driver}"
        for gpu in gpus()
    )
    print(len(gpus()), why_none() or listed, sep="\n")


def print_rtx() -> None:
    """Whether TensorRT-RTX works on the GPUs here: "ok", "refused" or "none", and why."""
    from ..backends.tensorrt.rtx_trial import print_trials

    print_trials()


def print_default_backend() -> None:
    """The backend that `auto` means here, and why."""
    from ..backends import choose_backend

    print(*choose_backend(), sep="\n")
