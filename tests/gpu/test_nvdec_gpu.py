"""Videos that a real NVDEC decodes: their frames stay on the GPU, and labels and pictures are those of the CPU way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpu_kinds import Kind

from rtformer_deploy.nvidia.driver import gpus, missing_video_library, why_none

pytest.importorskip("av", reason="needs PyAV")

from clips import ticks, turn, write_clip

import rtformer_deploy as rd
from rtformer_deploy.lanes.surfaces import GpuFrame

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not gpus(), reason=f"needs an NVIDIA GPU: {why_none()}"),
    pytest.mark.skipif(missing_video_library() is not None, reason=f"needs NVIDIA's {missing_video_library()}"),
]

SIZE = (480, 640)  # NVDEC has a smallest size for each codec


def results(clip: Path, runner: Any, **options: Any) -> list[rd.Result]:
    with rd.segment(clip, runner, **options) as made:
        return list(made)


@pytest.mark.parametrize(("degrees", "matrix"), [(0, 2), (0, 1), (90, 1), (180, 9), (270, 1)])
def test_frames_and_labels_are_those_of_the_cpu_way(kind: Kind, tmp_path: Path, degrees: int, matrix: int) -> None:
    """Every H.264 decoder gives the same pictures, by its standard."""
    clip = write_clip(tmp_path / "clip.mp4", ticks(30), SIZE, matrix=matrix)
    if degrees:
        turn(clip, degrees)
    with kind.open("fp16", lanes=2) as runner:
        given, expected = (results(clip, runner, decode=decode) for decode in ("gpu", "cpu"))
    assert len(given) == len(expected) == 30
    for one, other in zip(given, expected, strict=True):
        assert isinstance(one.picture, GpuFrame)
        np.testing.assert_array_equal(one.frame, other.frame)
        np.testing.assert_array_equal(one.labels, other.labels)


def test_auto_takes_nvdec_and_says_nothing(kind: Kind, tmp_path: Path) -> None:
    lines: list[str] = []
    clip = write_clip(tmp_path / "clip.mp4", ticks(3), SIZE)
    with kind.open("fp16") as runner:
        given = results(clip, runner, say=lines.append)
    assert all(isinstance(result.picture, GpuFrame) for result in given)
    assert lines == []


def test_memory_stays_flat_over_many_clips(kind: Kind, tmp_path: Path) -> None:
    import cuda.core

    clip = write_clip(tmp_path / "clip.mp4", ticks(10), SIZE)
    used = []
    with kind.open("fp16") as runner:
        for _ in range(20):
            assert len(results(clip, runner, decode="gpu")) == 10
            used.append(cuda.core.Device(0).memory_resource.attributes.used_mem_current)
    assert used[-1] - used[4] < 2**20, used
