"""Tells in half a minute what a GPU machine can do for this project, a line for each thing: python benchmarks/gpu_probe.py [--json FILE]

Ends with 1 if the stand-in's tests cannot run here: they need a GPU, cuda.core, NVRTC and a PyTorch with CUDA. A TensorRT that is missing,
or that refuses the GPU, is told and is no failure. Never run on a GPU so far.
"""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import harness
from harness import Json

_TRIAL = "from rtformer_deploy.backends.tensorrt.rtx_trial import print_trials; print_trials()"
_PATIENCE_S = 120


class MissingError(Exception):
    """Something is not here, which is no failure."""


def driver() -> str:
    from rtformer_deploy.nvidia.driver import gpus, why_none

    if not gpus():
        raise RuntimeError(why_none())
    return "; ".join(f"{gpu}, {gpu.memory_mib} MiB, driver for CUDA {gpu.driver}" for gpu in gpus())


def cuda_core() -> str:
    from importlib.metadata import version

    import cuda.core

    gpu = cuda.core.Device(0)
    gpu.set_current()
    gpu.create_stream().sync()
    return version("cuda-core")


def nvrtc() -> str:
    import cuda.core

    from rtformer_deploy.nvidia.nvrtc import compile_kernel_file

    gpu = cuda.core.Device(0)
    gpu.set_current()
    capability = gpu.compute_capability
    compile_kernel_file(cuda.core, "overlay", f"{capability.major}{capability.minor}").get_kernel("overlay")
    return f"compiles for {capability.major}.{capability.minor}, and the driver takes it"


def torch_cuda() -> str:
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError(f"this torch ({torch.__version__}) has no CUDA")
    total = float(torch.ones(1000, device="cuda").sum())
    assert total == 1000, total
    return f"{torch.__version__}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"


def optional(module: str) -> Callable[[], str]:
    def look() -> str:
        if importlib.util.find_spec(module) is None:
            raise MissingError("not installed")
        return str(importlib.import_module(module).__version__)

    return look


def rtx_trial() -> str:
    """In a process of its own, since a library that refuses a GPU may end it."""
    if importlib.util.find_spec("tensorrt_rtx") is None:
        raise MissingError("not installed")
    done = subprocess.run([sys.executable, "-c", _TRIAL], capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    if done.returncode != 0:
        raise MissingError(f"it ended with {done.returncode}: {(done.stderr.strip().splitlines() or ['no word'])[-1]}")
    state, _, why = done.stdout.strip().partition("\n")
    if state != "ok":
        raise MissingError(f"{state}: {why}")
    return why


STEPS: dict[str, Callable[[], str]] = {
    "GPU": driver,
    "cuda.core": cuda_core,
    "NVRTC": nvrtc,
    "torch": torch_cuda,
    "triton": optional("triton"),
    "CuPy": optional("cupy"),
    "TensorRT": optional("tensorrt"),
    "TensorRT-RTX": optional("tensorrt_rtx"),
    "a TensorRT-RTX engine": rtx_trial,
}


def try_step(step: Callable[[], str]) -> Json:
    """What a step says, as {"state": "ok" | "missing" | "failed", "says": ...}."""
    try:
        return {"state": "ok", "says": step()}
    except MissingError as why:
        return {"state": "missing", "says": str(why)}
    except Exception as error:  # the other steps are tried all the same
        return {"state": "failed", "says": f"{type(error).__name__}: {error}"}


def probe() -> Json:
    found = {}
    for name, step in STEPS.items():
        found[name] = try_step(step)
        print(f"{found[name]['state']:8}{name}: {found[name]['says']}", flush=True)
    return {"what": "what this machine can do", "found": found}


def main(words: Sequence[str] | None = None) -> int:
    arguments = harness.command_line(__doc__).parse_args(words)
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    result = harness.run_script(arguments.json, probe)
    return int(result is None or any(found["state"] == "failed" for found in result["found"].values()))


if __name__ == "__main__":
    raise SystemExit(main())
