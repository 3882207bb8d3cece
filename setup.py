"""The one part of the build that pyproject.toml cannot say: the native loops, which are left out where no compiler is."""

import sys
import sysconfig
from glob import glob

from setuptools import Extension, setup

STABLE_ABI = not sysconfig.get_config_var("Py_GIL_DISABLED")  # free-threaded CPython has none yet

# A product and a sum must not be fused: every compiler, and the CUDA kernels, then give the same bits.
FLAGS = (
    ["/O2", "/std:c++17", "/fp:precise"]
    if sys.platform == "win32"
    else ["-O3", "-g0", "-std=c++17", "-ffp-contract=off", "-fvisibility=hidden"]
)
LINK = [] if sys.platform == "win32" else ["-pthread"]

setup(
    ext_modules=[
        Extension(
            "rtformer_deploy.image._native",
            ["rtformer_deploy/image/_native.cpp"],
            include_dirs=["plugins"],
            depends=[*sorted(glob("rtformer_deploy/image/_native_*.hpp")), *sorted(glob("plugins/*.cuh"))],
            extra_compile_args=FLAGS,
            extra_link_args=LINK,
            define_macros=[("Py_LIMITED_API", "0x030B0000")] if STABLE_ABI else [],
            py_limited_api=STABLE_ABI,
            language="c++",
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if STABLE_ABI else {},
)
