"""CUDA sources in plugins/ to kernels, compiled for one device with NVRTC when they are needed."""

from __future__ import annotations

from typing import Any

from ..content import content_dir
from ..errors import EngineError, MissingPackageError


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
