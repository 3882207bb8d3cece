"""RTFormer-Slim under torch.compile behind lanes: the logits of PyTorch on the CPU, and one CUDA graph for the whole frame."""

from __future__ import annotations

import numpy as np
import pytest
from gpu_engines import SIZE
from gpu_frames import captured, graph_notes
from gpu_kinds import TorchKind, slim
from smooth_frames import frames

from rtformer_deploy.image import frames as image
from rtformer_deploy.nvidia.driver import gpus, why_none

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not gpus(), reason=f"needs an NVIDIA GPU: {why_none()}"),
    pytest.mark.filterwarnings("default"),  # torch.compile and Triton warn about themselves
]


@pytest.mark.parametrize("half", [False, True])
def test_the_compiled_network_gives_pytorchs_logits(half: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    TorchKind().need()
    pytest.importorskip("triton", reason="torch.compile needs Triton")
    import torch

    from rtformer_deploy.backends.torch.lanes import open_network_in_lanes

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # else convolutions in FP32 round to eleven bits
    reference, spec = slim()
    with open_network_in_lanes(slim()[0], spec, half=half, mode="max-autotune-no-cudagraphs", lanes=2) as runner:
        for seed in range(6):
            (frame,) = frames(SIZE, seed=seed)
            images = image.preprocess(frame, spec.size, spec.mean, spec.std, spec.resize)[None]
            with torch.inference_mode():
                expected = reference(torch.from_numpy(images)).numpy()
            given = runner.logits([frame])
            assert np.abs(given - expected).max() <= (2e-2 if half else 2e-3) * np.abs(expected).max()
            assert np.mean(given.argmax(1) != expected.argmax(1)) < (0.02 if half else 0.005)
            labels = image.upsample_argmax(given[0], frame.shape[:2], spec.size)
            for _ in runner.sessions:  # each lane in turn
                np.testing.assert_array_equal(runner.run([frame])[0], labels)
        assert captured(runner)
        assert graph_notes(runner) == []
