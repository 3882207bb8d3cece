"""The interfaces between the runner and the backends, and the checks that every backend makes before it opens a plan."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError
from ..types import EngineInfo, Frame


class EngineSession(Protocol):
    """Only the engine, with its input and output memory. It does one run at a time, for one thread at a time.

    `input` is (largest batch, 3, H, W), of the type of the engine's input, and writable while nothing runs. `start` runs the first
    `batch` images and returns at once if the backend can. `wait` returns that run's output, which is valid until the next `start`, and
    raises the run's error if it failed. After an interrupt `wait` may be called again.
    """

    @property
    def input(self) -> NDArray[np.floating]: ...

    def start(self, batch: int) -> None: ...

    def wait(self) -> NDArray[Any]: ...

    def close(self) -> None: ...


@runtime_checkable
class DeviceTimed(Protocol):
    """An EngineSession that can measure the device's own time. trtexec 11 reports that time; trtexec 10 includes more."""

    def device_ms(self) -> float:
        """The device's time for the last finished run in ms, without copies to and from the device."""
        ...


#: What frames become: label maps in host memory, label maps in device memory, or the engine's logits in host memory.
OutputKind = Literal["labels", "device labels", "logits"]


class Session(Protocol):
    """Frames to label maps or logits, one submission at a time: what the runner holds.

    A submission is `load`, `begin` and `take`, in that order. One thread at a time uses a session; only `frame` and `check` may be
    called at any time. `engine` runs only the engine, to measure it or to look at its output; use it while no submission is in flight.
    """

    @property
    def engine(self) -> EngineSession: ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user, such as how the session started."""
        ...

    def frame(self, size: tuple[int, int]) -> Frame:
        """A frame of (H, W) with any content to write into, in memory that the session reads without a copy if there is such memory.

        Any thread may call it at any time.
        """
        ...

    def check(self, frames: Sequence[Any], kind: OutputKind, stream: Any) -> Sequence[Any]:
        """Checks a caller's frames and returns them in the form that `load` takes.

        Raises ImageError if something is not a frame, UsageError if this session does not accept the frames, stream or kind of output.
        """
        ...

    def load(self, frames: Sequence[Any], stream: Any = None) -> None:
        """Copies checked frames to where the session reads them, unless it reads them where they are; then it holds them until `take`.

        Device frames are ready when the caller's `stream` is.
        """
        ...

    def begin(self, kind: OutputKind) -> None:
        """Starts work on the loaded frames and returns at once if the backend can."""
        ...

    def synchronize(self) -> None:
        """Waits until the started work is done, so that `take` does not have to wait. Raises the error if it failed."""
        ...

    def take(self) -> Any:
        """Waits if needed and returns one label map for each frame, or logits (N, classes, h, w) float32. The caller owns them.

        What the caller owns is not written again while any reference to it, or to a view of it, is left.

        Raises the error if the work failed. After an interrupt it may be called again.
        """
        ...

    def close(self) -> None: ...


class WorkerSession:
    """An EngineSession for a library whose calls block: `execute` runs on its own thread, so `start` returns at once."""

    def __init__(self, shape: tuple[int, ...], name: str, dtype: str = "float32") -> None:
        self.input: NDArray[np.floating] = np.zeros(shape, dtype)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._running: Future[NDArray[Any]] | None = None

    def execute(self, batch: int) -> NDArray[Any]:
        """Runs the first `batch` images of `input` and returns their output."""
        raise NotImplementedError

    def start(self, batch: int) -> None:
        self._running = self._worker.submit(self.execute, batch)

    def wait(self) -> NDArray[Any]:
        if self._running is None:
            raise EngineError("Nothing was started, so there is nothing to wait for.")
        return self._running.result()

    def close(self) -> None:
        self._worker.shutdown(wait=True)


def refuse_newer(info: EngineInfo, package: str, version: str) -> None:
    """Raises EngineError if the plan was built by a newer `package` than the `version` that is installed here.

    Only the first two numbers count; an older plan opens in a newer library.
    """
    builder_release = _release(info.builder_version)
    if builder_release is None:
        raise EngineError(f"The plan's builder version {info.builder_version!r} is not a version of {package}.", rebuild_hint(info))
    if builder_release > (_release(version) or (0, 0)):
        raise EngineError(
            f"The plan was built by {package} {info.builder_version}; here is {package} {version}, which is older.",
            f"Run: pip install --upgrade {package}, or build it again here: {rebuild_command(info)}",
        )


def refuse_stripped(info: EngineInfo) -> None:
    """Raises EngineError if a plan was built with --strip and has no weights yet."""
    if info.stripped:
        what = "The plan holds no weights: it was built with --strip."
        raise EngineError(what, "Put a model's weights in: rtformer-deploy refit PLAN MODEL.onnx -o NEW.plan")


def rebuild_command(info: EngineInfo) -> str:
    """The command that builds the same kind of plan on this machine."""
    smallest, usual, largest = info.batch
    batch = "" if largest == 1 else f" --min {smallest} --opt {usual} --max {largest}"
    io = " --io fp16" if info.io == "fp16" else ""
    strip = " --strip" if info.refit is not None else ""
    return f"rtformer-deploy build-engine MODEL.onnx --backend {info.backend} --{info.precision.asked}{io}{strip}{batch}"


def rebuild_hint(info: EngineInfo) -> str:
    """The sentence that ends an error about a plan that does not open here."""
    return f"Build it again here: {rebuild_command(info)}"


def _release(version: str) -> tuple[int, int] | None:
    numbers = re.match(r"(\d+)\.(\d+)", version)
    return None if numbers is None else (int(numbers[1]), int(numbers[2]))
