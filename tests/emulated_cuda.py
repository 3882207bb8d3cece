"""cuda.core as far as the kernels need it, on the host: sources are compiled with the C++ compiler, launches run them at once.

What a launch is handed is held to the kernel's own prototype, as the GPU would take it: a C int is an np.int32, a C float an np.float32,
an address or a long long a Python int. Device memory is NumPy's.
"""

from __future__ import annotations

import ctypes
import functools
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from built import built

HARNESS = Path(__file__).parent / "plugins"
COMPILER = shutil.which("g++") or shutil.which("clang++")
PROTOTYPE = re.compile(r'extern "C" __global__ void\s+(?:__launch_bounds__\((\d+)[^)]*\)\s+)?(\w+)\(([^)]*)\)')
C_TYPES: dict[str, tuple[type, Any]] = {
    "int": (np.int32, ctypes.c_int),
    "float": (np.float32, ctypes.c_float),
    "long long": (int, ctypes.c_longlong),
}


@dataclass(frozen=True)
class Prototype:
    """A kernel as its source declares it; `types` are "int", "float", "long long" or "pointer"."""

    name: str
    declared: str
    names: tuple[str, ...]
    types: tuple[str, ...]
    max_threads: int | None


def prototypes(source: str) -> dict[str, Prototype]:
    """A CUDA source -> its kernels."""
    found = {}
    for bound, name, declared in PROTOTYPE.findall(source):
        parts = [part.replace("__restrict__", "").strip() for part in declared.split(",")]
        names = tuple(re.findall(r"\w+$", part)[0] for part in parts)
        types = tuple("pointer" if "*" in part else part.rsplit(" ", 1)[0] for part in parts)
        found[name] = Prototype(name, " ".join(declared.split()), names, types, int(bound) if bound else None)
    return found


@functools.cache
def compiled(source: Path) -> ctypes.CDLL:
    """A .cu file -> a library with a `run_<kernel>(dims, arguments ...)` for each of its kernels."""
    runs = [
        f'extern "C" int run_{kernel.name}(const int* dims, {kernel.declared}) {{\n'
        f"    return emulated::launch(dims, [&] {{ {kernel.name}({', '.join(kernel.names)}); }});\n}}\n"
        for kernel in prototypes(source.read_text()).values()
    ]
    return compiled_text(f'#include "cuda_on_host.hpp"\n#include "{source.resolve()}"\n' + "".join(runs), source.parent)


def compiled_text(program: str, include: Path) -> ctypes.CDLL:
    """C++ that may include the emulation and the headers in `include` -> its library. Every warning is an error."""
    assert COMPILER is not None
    flags = ["-std=c++17", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared"]
    command = [COMPILER, *flags, f"-I{HARNESS}", f"-I{include}"]

    def build(library: Path) -> None:
        source = library.with_suffix(".cpp")
        source.write_text(program)
        done = subprocess.run([*command, str(source), "-o", str(library)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    return ctypes.CDLL(str(built("emulated", "program.so", [*HARNESS.glob("*.hpp"), *include.glob("*.cu*")], (program, command), build)))


@dataclass
class Kernel:
    prototype: Prototype
    run: Any


@dataclass
class Cuda:
    """The module and its device; `launches` keeps (kernel, grid, block) of each launch."""

    launches: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)
    gpu: Any = field(default_factory=lambda: gpu())

    def ProgramOptions(self, **options: Any) -> dict[str, Any]:  # noqa: N802
        assert options["arch"] == "sm_90"
        assert options["fma"] is False
        return options

    def Program(self, code: str, code_type: str, options: dict[str, Any]) -> Any:  # noqa: N802
        assert code_type == "c++"
        source = Path(options["include_path"][0]) / options["name"]
        assert source.read_text() == code
        return SimpleNamespace(compile=lambda target: self._object(source, target), close=lambda: None)

    def _object(self, source: Path, target: str) -> Any:
        assert target == "cubin"
        library, kernels = compiled(source), prototypes(source.read_text())
        return SimpleNamespace(get_kernel=lambda name: Kernel(kernels[name], library[f"run_{name}"]))

    def LaunchConfig(self, grid: tuple[int, ...], block: tuple[int, ...]) -> Any:  # noqa: N802
        return SimpleNamespace(grid=_three(grid), block=_three(block))

    def launch(self, stream: Any, config: Any, kernel: Kernel, *arguments: Any) -> None:
        assert stream is not None
        prototype = kernel.prototype
        assert int(np.prod(config.block)) <= (prototype.max_threads or 1024)
        assert config.grid[1] <= 65535
        assert config.grid[2] <= 65535
        assert len(arguments) == len(prototype.types), prototype.names
        values = [_as_c(*pair) for pair in zip(prototype.names, prototype.types, arguments, strict=True)]
        self.launches.append((prototype.name, config.grid, config.block))
        assert kernel.run((ctypes.c_int * 6)(*config.grid, *config.block), *values) == 0, "threads wait for each other for ever"


def gpu(multiprocessors: int = 4) -> Any:
    return SimpleNamespace(
        compute_capability=SimpleNamespace(major=9, minor=0), properties=SimpleNamespace(multiprocessor_count=multiprocessors)
    )


def _as_c(name: str, kind: str, value: Any) -> Any:
    expected, c_type = C_TYPES.get(kind, (int, ctypes.c_void_p))
    given = type(value)
    assert given is expected, f"{name} is {kind}, not {given.__name__}"
    if kind == "pointer":
        assert value > 0, name
        return c_type(value)
    return c_type(value.item() if isinstance(value, np.generic) else value)


def _three(extent: tuple[int, ...]) -> tuple[int, ...]:
    return (*extent, 1, 1)[:3]
