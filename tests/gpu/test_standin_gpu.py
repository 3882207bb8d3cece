"""The stand-in engine on a real GPU: the very bits of NumPy, at a size and depth that fill a GPU, so that what it says of lanes counts."""

from __future__ import annotations

import numpy as np
import pytest
from smooth_frames import frames
from standin_engine import standin_runner
from standin_network import Float, standin_info, standin_labels, standin_logits

from rtformer_deploy.nvidia.driver import gpus, why_none

pytest.importorskip("cuda.core", reason="needs cuda-core with its bindings", exc_type=ImportError)
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not gpus(), reason=f"needs an NVIDIA GPU: {why_none()}")]


@pytest.mark.parametrize("io", ["float32", "float16"])
@pytest.mark.parametrize(("size", "layers"), [((1024, 2048), 4), ((720, 960), 3), ((8, 8), 0)])
def test_logits_and_labels_are_numpys(io: Float, size: tuple[int, int], layers: int) -> None:
    info = standin_info(size, io=io)
    with standin_runner(info, layers=layers) as runner:
        for seed in range(3):  # without a graph, capturing it, from it
            (frame,) = frames(size, seed=seed)
            np.testing.assert_array_equal(runner.logits([frame])[0], standin_logits(frame, info, layers))
            np.testing.assert_array_equal(runner.run([frame])[0], standin_labels(frame, info, layers))
