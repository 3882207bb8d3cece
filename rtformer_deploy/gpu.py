"""Which NVIDIA GPUs this machine has, asked of the driver's own library; imports nothing of CUDA's Python."""

from __future__ import annotations

import ctypes
import functools
import sys
from dataclasses import dataclass

_NAMES = {"win32": ("nvcuda.dll",)}
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CUdevice_attribute, cuda.h


@dataclass(frozen=True, slots=True)
class GpuInfo:
    """One GPU; `compute_capability` is "9.0", `memory_mib` its memory, `driver` the newest CUDA version that the driver runs ("13.0")."""

    index: int
    name: str
    compute_capability: str
    memory_mib: int
    driver: str

    def __str__(self) -> str:
        return f"{self.name} ({self.compute_capability})"


def gpus() -> tuple[GpuInfo, ...]:
    """The NVIDIA GPUs that CUDA can use here, in CUDA's order; empty where there are none (`why_none` says why)."""
    return _ask()[0]


def why_none() -> str:
    """One sentence about why `gpus` is empty."""
    return _ask()[1]


@functools.cache
def _ask() -> tuple[tuple[GpuInfo, ...], str]:
    driver = _load()
    if driver is None:
        return (), "no NVIDIA driver is installed"
    if (status := driver.cuInit(0)) != 0:
        return (), f"the NVIDIA driver does not start (CUDA error {status})"
    count, version = ctypes.c_int(), ctypes.c_int()
    driver.cuDeviceGetCount(ctypes.byref(count))
    driver.cuDriverGetVersion(ctypes.byref(version))
    text = f"{version.value // 1000}.{version.value % 1000 // 10}"
    found = tuple(_describe(driver, index, text) for index in range(count.value))
    return found, "" if found else "the NVIDIA driver sees no GPU"


def _describe(driver: ctypes.CDLL, index: int, version: str) -> GpuInfo:
    device, name, memory = ctypes.c_int(), ctypes.create_string_buffer(128), ctypes.c_size_t()
    major, minor = ctypes.c_int(), ctypes.c_int()
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    driver.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device)
    return GpuInfo(index, name.value.decode(errors="replace"), f"{major.value}.{minor.value}", memory.value // 2**20, version)


def _load() -> ctypes.CDLL | None:
    for name in _NAMES.get(sys.platform, ("libcuda.so.1", "libcuda.so")):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None
