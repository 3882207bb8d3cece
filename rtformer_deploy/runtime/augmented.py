"""A runner that looks at each frame several times, mirrored and at other scales, and averages what it sees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..image.geometry import Axis, Size, output_axes
from ..image.upsample import checked, interpolate_plane
from ..types import Frame, LabelMap, ModelSpec
from .whole_logits import LogitsRunner, check_has_logits

_ROWS = 64  # rows of the frame that are held for all classes at once


class AugmentedRunner:
    """Frames to label maps, as a Runner's `run`: the argmax of the mean softmax over all views of a frame, at its own size.

    A view is a frame through one of `runners` (one network at several input sizes), and with `flip` also its mirror image through each.
    This is PaddleSeg's test-time augmentation. The runners stay the caller's, who closes them. Engines built with `--head labels`
    raise UsageError.
    """

    def __init__(self, runners: Sequence[LogitsRunner], flip: bool) -> None:
        if not runners:
            raise UsageError("Without a runner there is nothing to average.")
        for runner in runners:
            check_has_logits(runner.spec, "Mirrored and scaled views need")
        self._runners, self._flip = tuple(runners), flip

    @property
    def spec(self) -> ModelSpec:
        return self._runners[0].spec

    def run(self, frames: Sequence[Frame]) -> list[LabelMap]:
        return [self._label(frame) for frame in frames]

    def _label(self, frame: Frame) -> LabelMap:
        size = (frame.shape[0], frame.shape[1])
        views = [view for runner in self._runners for view in self._views(runner, frame)]
        labels = np.empty(size, np.uint8)
        for top in range(0, size[0], _ROWS):
            rows = slice(top, min(top + _ROWS, size[0]))
            mean = sum(view.softmax(rows) for view in views)
            labels[rows] = np.argmax(mean, axis=0)
        return labels

    def _views(self, runner: LogitsRunner, frame: Frame) -> Iterator[_View]:
        frames = [frame, np.ascontiguousarray(frame[:, ::-1])] if self._flip else [frame]
        for index, logits in enumerate(runner.logits(frames)):
            yield _View(logits, (frame.shape[0], frame.shape[1]), runner.spec, mirrored=index == 1)


class _View:
    """One look at a frame: its logits, and how the frame's pixels read them."""

    def __init__(self, logits: NDArray[np.float32], size: Size, spec: ModelSpec, *, mirrored: bool) -> None:
        self._logits, self._mirrored, self._probabilities = checked(logits), mirrored, spec.probabilities
        self._rows: Axis
        self._columns: Axis
        self._rows, self._columns = output_axes((logits.shape[1], logits.shape[2]), size, spec.size, spec.resize)

    def softmax(self, rows: slice) -> NDArray[np.float32]:
        """Some rows of the frame -> (classes, rows, W); what is probabilities already stays as it is."""
        values = np.stack([interpolate_plane(plane, self._rows, self._columns, rows) for plane in self._logits])
        if not self._probabilities:
            values -= values.max(axis=0)
            np.exp(values, out=values)
            values /= values.sum(axis=0)
        return values[:, :, ::-1] if self._mirrored else values
