"""Compiles the CUDA sources in plugins/ with NVRTC, for one device, when a kernel is needed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..content import content_dir
from ..errors import BuildError, EngineError, MissingPackageError

_VERSION = re.compile(rb"^\.version (\d+)\.(\d+)", re.MULTILINE)


def ptx_for_driver(code: bytes, driver: str) -> bytes:
    """PTX and the newest CUDA version of the driver ("12.4") -> the same PTX, with a version number that the driver accepts.

    NVRTC writes its own version into PTX, and an older driver refuses it even if the PTX uses nothing new. The driver still checks the
    instructions. Raises BuildError if `code` is not PTX.
    """
    match = _VERSION.search(code)
    if match is None:
        raise BuildError("The compiled kernel is no PTX: it names no version.")
    newest = _newest_ptx(driver)
    if (int(match[1]), int(match[2])) <= newest:
        return code
    return code[: match.start()] + b".version %d.%d" % newest + code[match.end() :]


def _newest_ptx(cuda_version: str) -> tuple[int, int]:
    """The newest version of PTX in a version of CUDA: "12.4" -> (8, 4). 12.6 has no new one."""
    major, minor = map(int, cuda_version.split("."))
    return major - 4, minor - 1 if major == 12 and minor >= 6 else minor


def compile_kernel_file(cuda: Any, name: str, arch: str, target: str = "cubin", folder: Path | None = None) -> Any:
    """The name of a source in plugins/ ("overlay") and an architecture ("90") -> its cuda.core ObjectCode.

    `folder` is where the source is if not in plugins/, whose headers it may include all the same. `cuda` is the module cuda.core; no GPU
    is needed for the `target` "cubin", a driver for "ptx". Products and sums are not fused, so that the bits are the CPU's. Raises
    MissingPackageError if NVRTC's library is not there, EngineError with NVRTC's message if the source does not compile.
    """
    plugins = content_dir("plugins")
    folder = folder or plugins
    include = [str(part) for part in dict.fromkeys((folder, plugins))]
    options = cuda.ProgramOptions(name=f"{name}.cu", arch=f"sm_{arch}", include_path=include, fma=False)
    try:
        program = cuda.Program((folder / f"{name}.cu").read_text(encoding="utf-8"), "c++", options)
        try:
            return program.compile(target)
        finally:
            program.close()
    except Exception as error:
        if type(error).__name__ == "DynamicLibNotFoundError":  # cuda.pathfinder's, which older versions do not export
            raise MissingPackageError("nvidia-cuda-nvrtc", "gpu", "Compiling the kernels in plugins/") from error
        raise EngineError(
            f"NVRTC does not compile {folder.name}/{name}.cu for sm_{arch}: {error}",
            "A GPU that is newer than NVRTC needs a newer one: pip install --upgrade 'rtformer-deploy[gpu]'",
        ) from error
