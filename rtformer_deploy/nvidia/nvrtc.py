"""CUDA sources in plugins/ to kernels, compiled for one device with NVRTC when they are needed."""

from __future__ import annotations

import re
from typing import Any

from ..content import content_dir
from ..errors import BuildError, EngineError, MissingPackageError

_VERSION = re.compile(rb"^\.version (\d+)\.(\d+)", re.MULTILINE)


def ptx_for_driver(code: bytes, driver: str) -> bytes:
    """PTX and the newest CUDA version that the driver runs ("12.4") -> the same PTX, of a version that this driver reads.

    NVRTC writes its own version into PTX, and an older driver refuses that, whatever the PTX holds. The driver still checks that nothing
    newer is in it. Raises BuildError for what is no PTX.
    """
    found = _VERSION.search(code)
    if found is None:
        raise BuildError("The compiled kernel is no PTX: it names no version.")
    newest = _newest_ptx(driver)
    if (int(found[1]), int(found[2])) <= newest:
        return code
    return code[: found.start()] + b".version %d.%d" % newest + code[found.end() :]


def _newest_ptx(cuda_version: str) -> tuple[int, int]:
    """The newest version of PTX in a version of CUDA: "12.4" -> (8, 4). 12.6 brought none of its own."""
    major, minor = map(int, cuda_version.split("."))
    return major - 4, minor - 1 if major == 12 and minor >= 6 else minor


def compile_kernel_file(cuda: Any, name: str, arch: str, target: str = "cubin") -> Any:
    """The name of a source in plugins/ ("overlay") and an architecture ("90") -> its cuda.core ObjectCode.

    `cuda` is the module cuda.core; no GPU is needed for the `target` "cubin", a driver for "ptx". Products and sums are not fused, so
    that the bits are the CPU's. Raises MissingPackageError if NVRTC's library is not there, EngineError with NVRTC's words where the
    source does not compile.
    """
    folder = content_dir("plugins")
    options = cuda.ProgramOptions(name=f"{name}.cu", arch=f"sm_{arch}", include_path=[str(folder)], fma=False)
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
            f"NVRTC does not compile plugins/{name}.cu for sm_{arch}: {error}",
            "A GPU that is newer than NVRTC needs a newer one: pip install --upgrade 'rtformer-deploy[gpu]'",
        ) from error
