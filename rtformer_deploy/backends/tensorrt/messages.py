"""The progress of a TensorRT build, with a monitor that can stop it."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from ...types import Progress


class BuildMonitor:
    """A TensorRT progress monitor over a Progress callback.

    `interrupted`: Ctrl-C was pressed. `failure`: what the callback raised; the caller of the builder raises it again.
    """

    def __init__(self, trt: Any, progress: Progress) -> None:
        self.progress = progress
        self.interrupted = False
        self.failure: BaseException | None = None
        self.steps: dict[str, int] = {}
        self.monitor = _monitor_class(trt)(self)

    def start(self, phase: str, steps: int) -> None:
        self.steps[phase] = steps

    def step(self, phase: str, step: int) -> bool:
        """Whether the build goes on. Must not raise: the bindings print an exception, lose it, and call the build cancelled."""
        total = self.steps.get(phase, 0)
        if self.goes_on:
            try:
                self.progress(phase, min(step + 1, total), total)
            except KeyboardInterrupt:
                self.interrupted = True
            except BaseException as error:  # any error of the callback belongs to the caller
                self.failure = error
        return self.goes_on

    @property
    def goes_on(self) -> bool:
        return not (self.interrupted or self.failure is not None)


@contextlib.contextmanager
def stopped_by_ctrl_c(monitor: BuildMonitor) -> Iterator[None]:
    """In the block, Ctrl-C makes the build stop at its next step. Then KeyboardInterrupt is raised."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(_number: int, _frame: FrameType | None) -> None:
        monitor.interrupted = True

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if monitor.interrupted:
        raise KeyboardInterrupt


def _monitor_class(trt: Any) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self, state: BuildMonitor) -> None:
            trt.IProgressMonitor.__init__(self)
            self._state = state

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._state.start(phase_name, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return self._state.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            self._state.steps.pop(phase_name, None)

    return Monitor
