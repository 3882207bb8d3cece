"""Facts about this machine for reports: CPU, cores, memory, system, package versions, and the memory that this process uses."""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .errors import MissingPackageError
from .nvidia.driver import gpus

#: Distributions whose version changes a figure or a result.
PACKAGES = (
    "rtformer-deploy",
    "numpy",
    "opencv-python-headless",
    "openvino",
    "onnxruntime-gpu",
    "onnxruntime",
    "onnxruntime-ep-openvino",
    "onnxruntime-ep-nv-tensorrt-rtx",
    "onnx",
    "onnx-ir",
    "torch",
    "tensorrt",
    "tensorrt-rtx-cu13",
    "cuda-core",
)

#: Instruction sets that decide how fast an engine is: the CPU's flag -> what it speeds up.
CPU_FEATURES = {
    "avx2": "256-bit vectors",
    "avx512f": "512-bit vectors",
    "avx512_vnni": "INT8",
    "avx512vnni": "INT8",  # as macOS writes it
    "avx_vnni": "INT8",
    "avx_vnni_int8": "INT8",
    "avx512_bf16": "BF16",
    "amx_int8": "INT8 tiles",
    "amx_bf16": "BF16 tiles",
    "asimd": "128-bit vectors",
    "sve": "scalable vectors",
    "i8mm": "INT8",
}

_MIB = 1024 * 1024


def require(package: str, extra: str, wanted_by: str) -> None:
    """Raises MissingPackageError, with the pip command, if a package of an extra is not installed; imports nothing."""
    if importlib.util.find_spec(package) is None:
        raise MissingPackageError(package, extra, wanted_by)


def environment() -> dict[str, Any]:
    """What a figure depends on, ready for JSON: cpu, cpu_features, architecture, cores, cores_usable, ram_gb, os, python, gpus, packages.

    `packages` maps names to versions.
    """
    import psutil

    return {
        "cpu": cpu_name(),
        "cpu_features": list(cpu_features()),
        "architecture": platform.machine(),
        "cores": psutil.cpu_count(logical=False) or psutil.cpu_count() or 1,
        "cores_usable": usable_cores(),
        "ram_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "os": operating_system(),
        "python": platform.python_version(),
        "gpus": [f"{gpu.name}, {gpu.memory_mib} MiB, driver for CUDA {gpu.driver}" for gpu in gpus()] or None,
        "packages": versions(PACKAGES),
    }


def cpu_name() -> str:
    """The processor's name as its maker writes it, or the architecture if the system does not say."""
    if sys.platform == "darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    fields = _cpuinfo()
    return fields.get("model name") or fields.get("hardware") or platform.processor() or platform.machine()


def cpu_flags() -> frozenset[str]:
    """The CPU's feature flags in lower case ("avx2", "avx512_vnni", ...); empty if the system does not list them."""
    if sys.platform == "darwin":
        names = ("machdep.cpu.features", "machdep.cpu.leaf7_features")
        return frozenset(" ".join(_output("sysctl", "-n", name) for name in names).lower().split())
    fields = _cpuinfo()
    return frozenset(fields.get("flags", fields.get("features", "")).lower().split())


def cpu_features() -> tuple[str, ...]:
    """Which of CPU_FEATURES the CPU has."""
    flags = cpu_flags()
    return tuple(name for name in CPU_FEATURES if name in flags)


def cpu_and_features() -> str:
    """The CPU's name with its features. The name alone may be that of several generations."""
    return " ".join((cpu_name(), *cpu_features()))


def processor(on_gpu: bool, device: int) -> str:
    """What an engine's times were taken on: GPU `device` or the CPU. Measurements of one are not continued on another."""
    return str(gpus()[device]) if on_gpu else cpu_and_features()


def sums_eight_bits_exactly() -> bool:
    """Whether the CPU's eight-bit products are summed in 32 bits. Older x86 adds pairs of them in 16 bits, which can overflow."""
    if platform.machine().lower() not in ("x86_64", "amd64", "i686"):
        return True
    return bool(cpu_flags() & {"avx512_vnni", "avx512vnni", "avx_vnni", "avx_vnni_int8", "amx_int8"})


def own_version() -> str:
    """The version of this program, "unknown" if it runs from its sources and is not installed."""
    return versions(("rtformer-deploy",)).get("rtformer-deploy", "unknown")


def usable_cores() -> int:
    """How many logical cores this process may run on (fewer than the machine has under taskset or in a container)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def operating_system() -> str:
    """Name and version of the system: the distribution and kernel on Linux."""
    if sys.platform == "linux":
        try:
            name = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
        except OSError:
            name = "Linux"
        return f"{name}, kernel {platform.release()}"
    return platform.platform()


def versions(names: Iterable[str]) -> dict[str, str]:
    """The versions of those of the named distributions that are installed."""
    installed = {}
    for name in names:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    return installed


def cache_folder() -> Path | None:
    """Where what this user's runs found out is kept for the next ones; it need not exist. None if the system names no place."""
    if sys.platform == "win32":
        place = os.environ.get("LOCALAPPDATA", "")
    elif sys.platform == "darwin":
        place = os.path.expanduser("~/Library/Caches")
    else:
        place = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(place) / "rtformer-deploy" if os.path.isabs(place) else None


def resident_mb() -> float:
    """Resident memory of this process now, in MiB."""
    import psutil

    return float(psutil.Process().memory_info().rss) / _MIB


def reset_peak() -> None:
    """Resets the peak on Linux. If Linux refuses, or on another system, `peak_mb` counts from the start of the process."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_mb() -> float:
    """The largest resident memory of this process, in MiB, since `reset_peak` (Linux) or since it started."""
    import psutil

    if sys.platform == "linux":
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):  # Windows
        return float(memory.peak_wset) / _MIB
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _MIB


def _cpuinfo() -> dict[str, str]:
    """The first processor's fields of /proc/cpuinfo, keys in lower case; empty if there is no such file."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip().lower(), value.strip())
    return fields


def _output(*command: str) -> str:
    """What a small system command prints, stripped; empty if it is missing or fails."""
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return process.stdout.strip() if process.returncode == 0 else ""
