"""The engines that run behind lanes on a GPU, and what each should give: the stand-in, the PyTorch network, TensorRT's.

A kind that is not installed is skipped by name. Whoever adds one gets the tests of gpu_frames.py.
"""

from __future__ import annotations

import copy
import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gpu_engines
import numpy as np
import pytest
from gpu_engines import Batch, built
from numpy.typing import NDArray
from standin_engine import LAYERS, standin_runner
from standin_network import Float, standin_info, standin_labels, standin_logits

from rtformer_deploy.image import frames as image
from rtformer_deploy.nvidia.driver import gpus
from rtformer_deploy.runtime.frame_runner import FrameRunner
from rtformer_deploy.types import Backend, EngineInfo, Frame, Head, LabelMap, ModelSpec, PrecisionName

ONE: Batch = (1, 1, 1)
TESTS = Path(__file__).resolve().parent


class Kind:
    """One engine. `exact`: a batch gives the very logits that its images give alone. `captures`: the lanes capture CUDA graphs."""

    name = ""
    precisions: tuple[PrecisionName, ...] = ("fp32", "fp16")
    heads: tuple[Head, ...] = ("lowres",)
    exact = False
    captures = True

    def need(self) -> None:
        """Skips the test if it cannot run here."""
        pytest.importorskip("cuda.core", reason="needs cuda-core with its bindings", exc_type=ImportError)

    def open(
        self, precision: PrecisionName, batch: Batch = ONE, head: Head = "lowres", *, lanes: int = 1, graphs: bool = True
    ) -> FrameRunner:
        """A runner over a new engine."""
        raise NotImplementedError

    def logits(self, runner: FrameRunner, frame: Frame) -> NDArray[np.float32]:
        """What the engine should give for a frame: what it gives for the CPU's preprocessing."""
        spec, session = runner.spec, runner.sessions[0].engine
        image.preprocess(frame, spec.size, spec.mean, spec.std, spec.resize, out=session.input[0])
        session.start(runner.engine_batch(1))
        return np.asarray(session.wait()[0], np.float32).copy()

    def labels(self, runner: FrameRunner, frame: Frame) -> LabelMap:
        """The CPU's label map of a frame, with what the engine should give in between."""
        spec, output = runner.spec, self.logits(runner, frame)
        if spec.head == "labels":
            return image.resize_labels(output.astype(np.uint8), frame.shape[:2], spec.size, spec.resize)
        return image.upsample_argmax(output, frame.shape[:2], spec.size, spec.resize)

    def save(self, folder: Path) -> str:
        """What another process needs to `reopen` an engine."""
        return ""

    def reopen(self, saved: str, *, lanes: int) -> FrameRunner:
        """In another process: a runner over the engine that was saved."""
        return self.open("fp16", lanes=lanes)


class StandinKind(Kind):
    """Whole numbers: what is expected comes from NumPy, not from the engine."""

    name, exact = "standin", True
    heads = ("lowres", "labels")

    def __init__(self, size: tuple[int, int] = gpu_engines.SIZE) -> None:
        self.size = size

    def open(
        self, precision: PrecisionName, batch: Batch = ONE, head: Head = "lowres", *, lanes: int = 1, graphs: bool = True
    ) -> FrameRunner:
        io: Float = "float16" if precision == "fp16" else "float32"
        return standin_runner(standin_info(self.size, batch=batch, head=head, io=io), lanes, graphs=graphs)

    def logits(self, runner: FrameRunner, frame: Frame) -> NDArray[np.float32]:
        return standin_logits(frame, _info(runner), LAYERS)

    def labels(self, runner: FrameRunner, frame: Frame) -> LabelMap:
        return standin_labels(frame, _info(runner), LAYERS)


class TorchKind(Kind):
    """RTFormer-Slim as PyTorch runs it, not compiled; tests/gpu/test_torch_engine_gpu.py compiles it."""

    name = "torch"

    def need(self) -> None:
        super().need()
        torch = pytest.importorskip("torch", reason="needs PyTorch")
        if not torch.cuda.is_available():
            pytest.skip(f"this PyTorch ({torch.__version__}) has no CUDA")

    def open(
        self, precision: PrecisionName, batch: Batch = ONE, head: Head = "lowres", *, lanes: int = 1, graphs: bool = True
    ) -> FrameRunner:
        from rtformer_deploy.backends.torch.lanes import open_network_in_lanes

        network, spec = slim()
        return open_network_in_lanes(network, spec, batch=batch, half=precision == "fp16", lanes=lanes, graphs=graphs)


class PlanKind(Kind):
    """A plan of a TensorRT, built here."""

    precisions = ("fp32", "fp16", "int8")
    heads = ("lowres", "labels")

    def __init__(self, name: Backend, module: str) -> None:
        self.name, self._module = name, module
        self.captures = name == "tensorrt"  # TensorRT-RTX captures its own

    def need(self) -> None:
        super().need()
        pytest.importorskip(self._module, reason=f"needs {self._module}", exc_type=ImportError)
        if self.name == "tensorrt-rtx":
            skip_if_rtx_refuses()

    def open(
        self, precision: PrecisionName, batch: Batch = ONE, head: Head = "lowres", *, lanes: int = 1, graphs: bool = True
    ) -> FrameRunner:
        from rtformer_deploy.backends import open_engine

        return open_engine(built(self.name, precision, batch, head), lanes=lanes, graphs=graphs)

    def save(self, folder: Path) -> str:
        from rtformer_deploy.formats.engine_file import save_engine

        save_engine(built(self.name, "fp16"), folder / "engine.plan")
        return str(folder / "engine.plan")

    def reopen(self, saved: str, *, lanes: int) -> FrameRunner:
        from rtformer_deploy.backends import open_engine
        from rtformer_deploy.formats.engine_file import load_engine

        return open_engine(load_engine(Path(saved)), lanes=lanes)


MODULES = {"tensorrt-rtx": "tensorrt_rtx", "tensorrt": "tensorrt"}
KINDS: tuple[Kind, ...] = (StandinKind(), TorchKind(), *(PlanKind(name, module) for name, module in MODULES.items()))


def kind_named(name: str) -> Kind:
    return next(kind for kind in KINDS if kind.name == name)


def in_another_process(code: str, kind: Kind, folder: Path, timeout_s: float = 300) -> str:
    """Runs Python code that reopens an engine, with the kind's name and what was saved as its arguments; what it printed."""
    path = [str(TESTS), str(TESTS.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-c", code, kind.name, kind.save(folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _info(runner: FrameRunner) -> EngineInfo:
    assert runner.info is not None
    return runner.info


def slim() -> tuple[Any, ModelSpec]:
    """RTFormer-Slim with seeded random weights, a network of its own each time, and its spec."""
    choice = gpu_engines.network()
    return copy.deepcopy(choice.network).eval(), choice.spec(size=gpu_engines.SIZE)


@functools.cache
def rtx_refusal() -> str | None:
    """TensorRT-RTX's own words about the first GPU, if it is none that NVIDIA lists for it and if it refuses it."""
    from rtformer_deploy.backends.tensorrt.rtx_trial import is_listed, refusal

    return refusal(gpus()[0]) if gpus() and not is_listed(gpus()[0]) else None


def skip_if_rtx_refuses() -> None:
    """Skips a test, naming the GPU and the reason. A GPU that NVIDIA lists is never skipped: there a refusal is a failure."""
    if (reason := rtx_refusal()) is not None:
        pytest.skip(f"TensorRT-RTX refuses {gpus()[0]}: {reason}")
