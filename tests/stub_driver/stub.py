"""The stub of the CUDA driver from Python: it is built here, loaded into this process, and told how to behave.

cuda.core must be imported after `load` (or in a process with `environment`), and NVRTC must stay out: kernels come as `cubin`s.
"""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from built import ROOT, built
from emulated_cuda import COMPILER, HARNESS, prototypes

HERE = Path(__file__).parent
PLUGINS = ROOT / "plugins"
SONAME = "libcuda.so.1"

#: How queued work runs: when it is waited for; one piece more each time somebody asks; at once in a thread; not at all.
Mode = Literal["lazy", "stepping", "worker", "no work"]
_MODES: tuple[Mode, ...] = ("lazy", "stepping", "worker", "no work")

_C = (
    "gcc",
    "-std=gnu11",
    "-O2",
    "-g",
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
    "-Werror",
    *os.environ.get("STUB_DRIVER_CFLAGS", "").split(),
)
_LINK = (f"-Wl,-soname,{SONAME}", "-Wl,-z,defs", "-lpthread", "-ldl")
_CPP = ("-std=c++17", "-O2", "-ffp-contract=off", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror")

Callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class StubDriver:
    """The control functions of the stub that is loaded in this process."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        for name in ("stub_used", "stub_pending", "stub_log", "stub_calls"):
            library[name].restype = ctypes.c_size_t
        library["stub_faults"].restype = ctypes.c_ulong

    # What happened.

    def calls(self) -> dict[str, int]:
        """How often each driver function was called since `forget` or `reset`."""
        return {name: int(count) for name, count in (line.split() for line in self._text("stub_calls").splitlines())}

    def log(self) -> list[str]:
        """What was queued or captured, and what was refused and why, in order."""
        return self._text("stub_log").splitlines()

    def refusals(self) -> list[str]:
        """The log's lines about refused calls."""
        return [line for line in self.log() if line.startswith("refused ")]

    def faults(self) -> int:
        """Mistakes that a GPU does not report: use of freed memory, writing behind an end. Asking sets the count back."""
        return int(self.library.stub_faults())

    def pending(self) -> int:
        """Operations that are queued and have not run."""
        return int(self.library.stub_pending())

    def used(self) -> int:
        """Bytes that are allocated, pinned memory included."""
        return int(self.library.stub_used())

    # What is to happen.

    def mode(self, mode: Mode) -> None:
        """How queued work runs from now on; what is queued runs first."""
        self.library.stub_set_mode(_MODES.index(mode))

    def break_context(self, code: int = 700, after: int | None = None) -> None:
        """The first GPU's context breaks with a CUDA error: now, or when `after` more copies, fills, kernels and callbacks have run."""
        if after is None:
            self.library.stub_break(code)
        else:
            self.library.stub_break_after(ctypes.c_long(after), code)

    def hang(self) -> None:
        """Nothing runs any more: waiting lasts until `release`, and asking says that it is not done."""
        self.library.stub_hang(1)

    def release(self) -> None:
        self.library.stub_hang(0)

    def graphs_do_nothing(self) -> None:
        """Graphs are launched without an error and do nothing, until `reset`."""
        self.library.stub_graphs_do_nothing()

    def note(self, line: str) -> None:
        """Adds a line to the log."""
        self.library.stub_note(line.encode())

    def memory_limit(self, size: int) -> None:
        """So many bytes may be allocated altogether."""
        self.library.stub_limit(ctypes.c_size_t(size))

    def enqueue_host(self, stream: int, callback: Any, argument: int = 0) -> int:
        """Queues (or captures) a `Callback`, which may call the driver; its owner keeps it alive. The CUDA error."""
        return int(self.library.stub_enqueue_host(ctypes.c_void_p(stream), callback, ctypes.c_void_p(argument)))

    def forget(self) -> None:
        """Begins counts and log again."""
        self.library.stub_forget_calls()

    def reset(self) -> None:
        """A GPU that works, runs lazily, has all its memory and has nothing to do; contexts and memory stay."""
        self.library.stub_heal()
        self.mode("lazy")
        self.memory_limit(80 << 30)
        self.forget()
        self.faults()

    def _text(self, function: str) -> str:
        size = self.library[function](None, ctypes.c_size_t(0))
        room = ctypes.create_string_buffer(size + 4096)  # another thread may add something meanwhile
        size = min(self.library[function](room, ctypes.c_size_t(len(room))), len(room))
        return room.raw[:size].decode()


@functools.cache
def load() -> StubDriver:
    """Loads the stub so that whoever asks for libcuda.so.1 in this process gets it; nobody may have asked before."""
    return StubDriver(ctypes.CDLL(str(driver_library()), ctypes.RTLD_GLOBAL))


def environment() -> dict[str, str]:
    """This process's environment with the stub as the driver, for a process of its own."""
    others = os.environ.get("LD_LIBRARY_PATH")
    return {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join([str(driver_library().parent), *([others] if others else [])])}


@functools.cache
def driver_library() -> Path:
    """The built stub."""
    sources = sorted(HERE.glob("*.c"))
    return _built(SONAME, [*sources, *HERE.glob("*.h")], lambda out: [*_C, *map(str, sources), "-o", str(out), *_LINK])


@functools.cache
def kernel_library(name: str, folder: Path = PLUGINS) -> Path:
    """<folder>/<name>.cu, built for the host, with an entry for each of its kernels that the stub finds."""
    source = folder / f"{name}.cu"
    entries = "".join(
        f'extern "C" __attribute__((visibility("default"))) const HostKernel stub_kernel_{kernel.name} = '
        f"OnHost<{kernel.name}>::entry({kernel.max_threads or 1024});\n"
        for kernel in prototypes(source.read_text(encoding="utf-8")).values()
    )
    program = f'#include "host_kernels.hpp"\n#include "{source}"\n{entries}'
    parts = [source, *PLUGINS.glob("*.cu*"), *HARNESS.glob("*.hpp"), *HERE.glob("*.hpp")]

    def command(out: Path) -> list[str]:
        text = out.with_suffix(".cpp")
        text.write_text(program, encoding="utf-8")
        assert COMPILER is not None
        return [COMPILER, *_CPP, *(f"-I{folder}" for folder in (HERE, HARNESS, PLUGINS)), str(text), "-o", str(out)]

    return _built(f"{name}.so", parts, command, program)


def cubin(name: str, capability: int = 90, folder: Path = PLUGINS) -> bytes:
    """What the stub takes for the cubin of <folder>/<name>.cu, built for a compute capability (90 is 9.0)."""
    return f"stub cubin\n{capability}\n{kernel_library(name, folder)}\n".encode() + b"\0"


def compile_kernel_file(cuda: Any, name: str, arch: str, target: str = "cubin", folder: Path | None = None) -> Any:
    """Stands in for `rtformer_deploy.nvidia.nvrtc.compile_kernel_file`."""
    assert target == "cubin"
    return cuda.ObjectCode.from_cubin(cubin(name, int(arch), folder or PLUGINS), name=name)


def _built(name: str, parts: Sequence[Path], command: Callable[[Path], list[str]], program: str = "") -> Path:
    """Builds a library once for what its sources and the command are."""

    def build(library: Path) -> None:
        done = subprocess.run(command(library), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    return built("stub_driver", name, parts, (program, _C, _LINK, _CPP), build)
