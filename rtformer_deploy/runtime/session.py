"""What the runner holds, what a backend gives it, and what every backend asks of a plan before it opens it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError
from ..types import EngineInfo


class EngineSession(Protocol):
    """An engine alone, one run at a time, with the memory it reads and writes. One thread at a time uses it.

    `input` is (largest batch, 3, H, W) float32 and writable while nothing runs. `start` runs the first `batch` images and returns at once
    if the backend can. `wait` returns that run's output, which is valid until the next `start`, and raises what went wrong. After an
    interrupt `wait` may be called again.
    """

    @property
    def input(self) -> NDArray[np.float32]: ...

    def start(self, batch: int) -> None: ...

    def wait(self) -> NDArray[Any]: ...

    def close(self) -> None: ...


@runtime_checkable
class DeviceTimed(Protocol):
    """An EngineSession that knows how long the device itself worked, which trtexec 11 counts and trtexec 10 does not stop at."""

    def device_ms(self) -> float:
        """The device's time for the last finished run in ms, copies to and from it left out."""
        ...


#: What frames become: label maps in host memory, label maps in device memory, or the engine's logits in host memory.
OutputKind = Literal["labels", "device labels", "logits"]


class Session(Protocol):
    """Frames to label maps or logits, one submission at a time: what the runner holds.

    A submission is `load`, `begin` and `take`, in that order. One thread at a time uses a session; only `check` may be called at any
    time. `engine` is the engine alone, for measuring it and for looking at its output; use it while no submission is in flight.
    """

    @property
    def engine(self) -> EngineSession: ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should hear, such as how the session started."""
        ...

    def check(self, frames: Sequence[Any], kind: OutputKind, stream: Any) -> Sequence[Any]:
        """A caller's frames to frames as `load` takes them.

        Raises ImageError for what is no frame, UsageError for frames, a stream or a kind of output that this session does not take.
        """
        ...

    def load(self, frames: Sequence[Any], stream: Any = None) -> None:
        """Puts checked frames where the session reads them. `stream` is the caller's; device frames are ready when it is."""
        ...

    def begin(self, kind: OutputKind) -> None:
        """Starts the work on what was loaded and returns at once if the backend can."""
        ...

    def synchronize(self) -> None:
        """Waits until what was begun has run, so that `take` no longer waits. Raises what went wrong."""
        ...

    def take(self) -> Any:
        """Waits if needed and returns one label map for each frame, or logits (N, classes, h, w) float32; they are the caller's own.

        Raises what went wrong. After an interrupt it may be called again.
        """
        ...

    def close(self) -> None: ...


class WorkerSession:
    """An EngineSession for a library that only knows blocking calls: `execute` runs on a thread of its own, so `start` returns at once."""

    def __init__(self, shape: tuple[int, ...], name: str) -> None:
        self.input: NDArray[np.float32] = np.zeros(shape, np.float32)
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
    built = _release(info.builder_version)
    if built is None:
        raise EngineError(f"The plan's builder version {info.builder_version!r} is not a version of {package}.", rebuild_hint(info))
    if built > (_release(version) or (0, 0)):
        raise EngineError(
            f"The plan was built by {package} {info.builder_version}; here is {package} {version}, which is older.",
            f"Run: pip install --upgrade {package}, or build it again here: {rebuild_command(info)}",
        )


def rebuild_command(info: EngineInfo) -> str:
    """The command that builds such a plan on this machine."""
    smallest, usual, largest = info.batch
    batch = "" if largest == 1 else f" --min {smallest} --opt {usual} --max {largest}"
    return f"rtformer-deploy build-engine MODEL.onnx --backend {info.backend} --{info.precision.asked}{batch}"


def rebuild_hint(info: EngineInfo) -> str:
    """The sentence that ends an error about a plan that does not open here."""
    return f"Build it again here: {rebuild_command(info)}"


def _release(version: str) -> tuple[int, int] | None:
    numbers = re.match(r"(\d+)\.(\d+)", version)
    return None if numbers is None else (int(numbers[1]), int(numbers[2]))
