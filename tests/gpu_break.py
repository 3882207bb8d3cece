"""A process that breaks the GPU's context under four busy lanes: python tests/gpu_break.py KIND [PLAN]. Prints what the lanes say."""

from __future__ import annotations

import os
import sys

import cuda.core as cuda
from gpu_frames import broken
from gpu_kinds import kind_named
from smooth_frames import frames

WILD = 'extern "C" __global__ void wild(long long at) { *reinterpret_cast<volatile int*>(at) = 1; }'


def write_anywhere() -> None:
    """Launches a kernel that writes where there is no memory."""
    gpu = cuda.Device(0)
    gpu.set_current()
    arch = gpu.compute_capability
    wild = cuda.Program(WILD, "c++", cuda.ProgramOptions(arch=f"sm_{arch.major}{arch.minor}")).compile("cubin").get_kernel("wild")
    cuda.launch(gpu.create_stream(), cuda.LaunchConfig(grid=1, block=1), wild, 64)


if __name__ == "__main__":
    runner = kind_named(sys.argv[1]).reopen(sys.argv[2] if len(sys.argv) > 2 else "", lanes=4)
    print(broken(runner, frames((256, 512))[0], write_anywhere, busy_s=2))
    sys.stdout.flush()
    os._exit(0)  # the context is broken: there is nothing to tidy up
