"""NV12 to RGB gives what FFmpeg makes of the same picture on the CPU."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import ticks, write_clip
from numpy.typing import NDArray

from rtformer_deploy.errors import ImageError
from rtformer_deploy.image.nv12 import nv12_to_rgb, yuv_factors

av = pytest.importorskip("av")

#: FFmpeg converts with other roundings on other processors, and with interpolated chroma if the height is odd.
ON_X86 = platform.machine() in ("x86_64", "AMD64")
BOUND = 0 if ON_X86 else 3


def planes_of(frame: Any) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A frame in yuv420p -> its planes as NV12 has them."""
    y, u, v = (np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width] for plane in frame.planes)
    return y, np.stack([u, v], axis=2)


def difference(frame: Any) -> int:
    """The largest difference between FFmpeg's RGB and ours."""
    expected = frame.to_ndarray(format="rgb24")
    given = nv12_to_rgb(*planes_of(frame), yuv_factors(frame.colorspace, frame.color_range == 2))
    return int(np.abs(given.astype(int) - expected).max())


@pytest.mark.parametrize("matrix", [0, 1, 2, 4, 5, 6, 7, 9])
@pytest.mark.parametrize("told", [0, 1, 2])
@pytest.mark.parametrize("size", [(64, 96), (2, 2), (48, 71)])
def test_noise_of_every_matrix_and_range(matrix: int, told: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(matrix)
    frame = av.VideoFrame(size[1], size[0], "yuv420p")
    frame.colorspace, frame.color_range = matrix, told
    for plane in frame.planes:
        plane.update(rng.integers(0, 256, plane.buffer_size, np.uint8).tobytes())
    assert difference(frame) <= BOUND


def test_decoded_frames(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", ticks(3))
    with av.open(str(clip)) as container:
        assert max(difference(frame) for frame in container.decode(video=0)) <= BOUND


@pytest.mark.parametrize("matrix", [3, 8, 10, 14])
def test_a_matrix_that_ffmpeg_does_not_convert_is_refused(matrix: int) -> None:
    with pytest.raises(ImageError, match=rf"of matrix {matrix} \(ITU-T H\.273\)"):
        yuv_factors(matrix, full=False)


def test_turns_are_numpys() -> None:
    rng = np.random.default_rng(0)
    planes, factors = (rng.integers(0, 256, (6, 8), np.uint8), rng.integers(0, 256, (3, 4, 2), np.uint8)), yuv_factors(1, full=False)
    upright = nv12_to_rgb(*planes, factors)
    for turns in range(4):
        turned = nv12_to_rgb(*planes, factors, turns)
        assert turned.flags.c_contiguous
        np.testing.assert_array_equal(turned, np.rot90(upright, turns))
