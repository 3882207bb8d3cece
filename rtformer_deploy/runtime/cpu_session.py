"""Frames to label maps, with pre- and post-processing on the CPU: the Session for every engine that only takes tensors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..image import frames as image
from ..types import Frame, LabelMap, ModelSpec
from .frame_checks import check_host_frames, is_on_device
from .session import EngineSession, OutputKind

Size = tuple[int, int]  # (H, W)


def preprocess_frames(frames: Sequence[Frame], spec: ModelSpec, out: NDArray[np.floating], threads: int | None = None) -> None:
    """Writes frames of any size, resized and normalised, to the first images of `out` (N, 3, H, W). `threads` None: all cores.

    They are computed in FP32 and, if `out` is FP16, rounded to nearest even, as a GPU's kernels do it.
    """
    prepare = partial(
        image.preprocess,
        spec_size=spec.size,
        mean=spec.mean,
        std=spec.std,
        resize=spec.resize,
        corners=spec.resize_corners,
        threads=threads,
    )
    for frame, target in zip(frames, out, strict=False):
        if target.dtype == np.float32:
            prepare(frame, out=target.view(np.float32))
        else:
            target[...] = prepare(frame)


def label_maps(output: NDArray[Any], sizes: Sequence[Size], spec: ModelSpec, threads: int | None = None) -> list[LabelMap]:
    """An engine's output to label maps of these sizes (H, W). Further images are padding and are skipped. `threads` None: all cores.

    Logits of any stride are interpolated to the frame's size, straight or with `spec.resize_corners` in two steps, followed by argmax.
    Labels are resized with nearest neighbour.
    """
    outputs = zip(output, sizes, strict=False)
    if spec.head == "labels":
        resized = partial(
            image.resize_labels, input_size=spec.size, resize=spec.resize, corners=spec.resize_corners, classes=len(spec.classes)
        )
        return [resized(labels, size) for labels, size in outputs]
    upsample = partial(image.upsample_argmax, input_size=spec.size, resize=spec.resize, corners=spec.resize_corners, threads=threads)
    return [upsample(logits, size) for logits, size in outputs]


class CpuSession:
    """Implements `Session` around `engine`: this class preprocesses frames into its input and turns its output into label maps.

    `smallest` is the engine's smallest batch: fewer frames are padded with whatever the input holds, and the padding's output is dropped.
    `threads` limits the threads of pre- and post-processing (None: all cores).
    """

    notes: tuple[str, ...] = ()

    def __init__(self, engine: EngineSession, spec: ModelSpec, smallest: int = 1, threads: int | None = None) -> None:
        self.engine = engine
        self._spec, self._smallest, self._threads = spec, smallest, threads
        self._sizes: list[Size] = []
        self._kind: OutputKind = "labels"
        self._output: NDArray[Any] | None = None

    def frame(self, size: Size) -> Frame:
        return np.empty((*size, 3), np.uint8)

    def check(self, frames: Sequence[Any], kind: OutputKind, stream: Any) -> Sequence[Frame]:
        if stream is not None or kind == "device labels" or any(map(is_on_device, frames)):
            raise UsageError("An engine on a CPU takes no frames on the GPU, no stream and no on_device.", "Pass NumPy arrays.")
        check_host_frames(frames)
        return frames

    def load(self, frames: Sequence[Frame], stream: Any = None) -> None:
        self._sizes = [(frame.shape[0], frame.shape[1]) for frame in frames]
        preprocess_frames(frames, self._spec, self.engine.input, self._threads)

    def begin(self, kind: OutputKind) -> None:
        self._kind, self._output = kind, None
        self.engine.start(max(len(self._sizes), self._smallest))

    def synchronize(self) -> None:
        self._wait_for_output()

    def take(self) -> Any:
        output = self._wait_for_output()
        if self._kind == "logits":
            return np.array(output[: len(self._sizes)], np.float32)
        return label_maps(output, self._sizes, self._spec, self._threads)

    def close(self) -> None:
        self.engine.close()

    def _wait_for_output(self) -> NDArray[Any]:
        """Waits for the output of the current run. The engine is asked only once."""
        if self._output is None:
            self._output = self.engine.wait()
        return self._output
