"""Lanes on a real GPU, with every engine that is here: the CPU's label maps, graphs, threads, device frames, no growth, no hang.

What each engine must do is in tests/gpu_frames.py. The stand-in and the PyTorch network need no TensorRT. Below: what plans alone do.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from gpu_engines import built
from gpu_frames import *  # noqa: F403  # its tests, with the fixtures of this folder

from rtformer_deploy.formats.engine_file import load_engine, save_engine
from rtformer_deploy.nvidia.driver import gpus, why_none
from rtformer_deploy.types import Backend

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not gpus(), reason=f"needs an NVIDIA GPU: {why_none()}")]

START = """
import sys
from pathlib import Path
from rtformer_deploy import load_engine, open_engine
with open_engine(load_engine(Path(sys.argv[1]))) as runner:
    print([note for note in runner.notes if note.startswith("Start")][0])
"""


def start_anew(plan: Path) -> str:
    """Opens a plan in a process of its own, and gives its note about that."""
    done = subprocess.run([sys.executable, "-c", START, str(plan)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.usefixtures("rtx_runs_here")
def test_a_second_start_does_not_compile_again(tmp_path: Path) -> None:
    plan = tmp_path / "engine.plan"
    save_engine(built("tensorrt-rtx", "fp16"), plan)
    first, second = (start_anew(plan) for _ in range(2))
    print(first, second)
    assert (tmp_path / "engine.plan.cache").stat().st_size > 0
    assert "compiling for this GPU" in first
    took = re.search(r"Start: (\d+) ms with engine.plan.cache; the first one, which compiled, took (\d+) ms", second)
    assert took is not None
    assert int(took[1]) < int(took[2])


def test_what_was_loaded_knows_where_it_lies(tmp_path: Path, backend: Backend) -> None:
    path = tmp_path / "engine.plan"
    save_engine(built(backend, "fp16"), path)
    assert load_engine(path).path == path
