"""Which NVIDIA GPUs this machine has. Calls the driver's own library and imports no CUDA package for Python."""

from __future__ import annotations

import ctypes
import functools
import sys
from dataclasses import dataclass

from ..errors import EngineError, UsageError

_NAMES = {"win32": ("nvcuda.dll",)}
_VIDEO_NAMES = {"win32": "nvcuvid.dll"}
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CUdevice_attribute, cuda.h
_POINTER_ATTRIBUTES = (ctypes.c_int * 3)(2, 9, 1)  # CUpointer_attribute: the type of memory, the device's number, the context
_ON_DEVICE = (2, 4)  # CUmemorytype: device, unified


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
    """The NVIDIA GPUs that CUDA can use here, in CUDA's order; empty if there are none (`why_none` says why)."""
    return _ask()[0]


def why_none() -> str:
    """One sentence about why `gpus` is empty."""
    return _ask()[1]


def gpu_at(index: int) -> GpuInfo:
    """GPU `index`. Raises UsageError if listing is no such GPU."""
    present = gpus()
    if not 0 <= index < len(present):
        listing = ", ".join(f"{gpu.index}: {gpu}" for gpu in present)
        raise UsageError(f"There is no GPU {index} here; " + (f"there are: {listing}." if present else f"{why_none()}."))
    return present[index]


def make_current(index: int) -> None:
    """Makes GPU `index` the one that CUDA libraries use in this thread: its primary context, which stays for the life of the process.

    Raises UsageError if there is no such GPU, EngineError if CUDA refuses.
    """
    gpu = gpu_at(index)
    driver = _load()
    assert driver is not None, "there is a GPU, so there is a driver"
    context = ctypes.c_void_p()
    status = driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), index) or driver.cuCtxSetCurrent(context)
    if status != 0:
        raise EngineError(f"CUDA cannot use GPU {index}, {gpu} (CUDA error {status}).", "See whether nvidia-smi shows it.")


def missing_video_library() -> str | None:
    """The name of the driver's library for decoding videos, if it is not installed; None: it is there."""
    name = _VIDEO_NAMES.get(sys.platform, "libnvcuvid.so.1")
    try:
        ctypes.CDLL(name)
    except OSError:
        return name
    return None


def current_context() -> int:
    """The CUDA context that is current in this thread, as a handle; 0: none. Needs a driver."""
    return _read_handle("cuCtxGetCurrent") or 0


def set_context(context: int) -> None:
    """Makes a context current in this thread."""
    driver = _load()
    assert driver is not None, "there is a GPU, so there is a driver"
    driver.cuCtxSetCurrent(ctypes.c_void_p(context))


def stream_context(handle: int) -> int | None:
    """The context that a stream belongs to; None if CUDA does not know. Some context must be current."""
    return _read_handle("cuStreamGetCtx", ctypes.c_void_p(handle))


def memory_owner(address: int) -> tuple[int, int | None] | None:
    """Device memory -> its GPU's number and its context (None: memory of a pool has no context). None if it is not device memory."""
    driver = _load()
    assert driver is not None, "there is a GPU, so there is a driver"
    values = [ctypes.c_void_p() for _ in _POINTER_ATTRIBUTES]  # as wide as the widest attribute, and zero
    pointers = (ctypes.c_void_p * len(values))(*[ctypes.addressof(value) for value in values])
    status = driver.cuPointerGetAttributes(len(values), _POINTER_ATTRIBUTES, pointers, ctypes.c_uint64(address))
    memory_type, device, context = (value.value for value in values)
    return (device or 0, context) if status == 0 and memory_type in _ON_DEVICE else None


def _read_handle(function: str, *arguments: object) -> int | None:
    """Calls a driver function that writes a handle through its last parameter; None if it fails."""
    driver = _load()
    assert driver is not None, "there is a GPU, so there is a driver"
    value = ctypes.c_void_p()
    status = getattr(driver, function)(*arguments, ctypes.byref(value))
    return value.value if status == 0 else None


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
    present = tuple(_describe(driver, index, text) for index in range(count.value))
    return present, "" if present else "the NVIDIA driver sees no GPU"


def _describe(driver: ctypes.CDLL, index: int, version: str) -> GpuInfo:
    device, name, memory = ctypes.c_int(), ctypes.create_string_buffer(128), ctypes.c_size_t()
    major, minor = ctypes.c_int(), ctypes.c_int()
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    driver.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device)
    return GpuInfo(index, name.value.decode(errors="replace"), f"{major.value}.{minor.value}", memory.value // 2**20, version)


@functools.cache  # cached, because each opening makes new function objects, and lanes call this several times per frame
def _load() -> ctypes.CDLL | None:
    """The driver's library; None if there is none."""
    for name in _NAMES.get(sys.platform, ("libcuda.so.1", "libcuda.so")):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None
