"""What label maps of a lane on the fake GPU have to be: those of the CPU, bit for bit."""

from __future__ import annotations

import numpy as np
from helpers import tiny_spec
from null_tensorrt import network
from numpy.typing import NDArray

from rtformer_deploy.image import frames as image
from rtformer_deploy.runtime.frame_runner import FrameRunner

SIZES = ((64, 96), (50, 70), (131, 200), (33, 41))


def reference(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What the CPU code makes of a frame with the fake engine."""
    spec = tiny_spec()
    logits = network(image.preprocess(frame, spec.size, spec.mean, spec.std, spec.resize)[None])[0]
    return image.upsample_argmax(logits, frame.shape[:2], spec.size, spec.resize)


def check(runner: FrameRunner, given: list[NDArray[np.uint8]]) -> None:
    for frame in given:
        np.testing.assert_array_equal(runner.run([frame])[0], reference(frame))


# The frame's way.
