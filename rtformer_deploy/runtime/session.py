"""What every backend gives the runner: sessions that own their buffers; and what every backend asks of a plan before it opens it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError
from ..types import EngineInfo


class Session(Protocol):
    """One request to an engine, with the memory it reads and writes; one thread at a time uses it.

    `input` is (largest batch, 3, H, W) float32 and writable whenever nothing is in flight. `start` returns at once where the
    backend can; `wait` gives a view of the output for that batch, valid until the next `start`, and raises what went wrong. After an
    interrupt `wait` may be called again.
    """

    @property
    def input(self) -> NDArray[np.float32]: ...

    def start(self, batch: int) -> None: ...

    def wait(self) -> NDArray[Any]: ...

    def close(self) -> None: ...


#: What becomes of frames: label maps in host memory, label maps in device memory, or the engine's logits in host memory.
Want = Literal["labels", "device labels", "logits"]


class FrameSession(Session, Protocol):
    """A Session whose device also does what comes before and after the engine: it takes frames and gives label maps.

    `load` takes frames, all of them in host memory or all on the device; a caller's `stream` says what device frames wait for. `begin`
    returns at once. `take` waits and gives a list of label maps, or logits (N, classes, h, w) float32; they are the caller's own. After
    an interrupt `take` may be called again.
    """

    def load(self, frames: Sequence[Any], stream: Any = None) -> None: ...

    def begin(self, want: Want) -> None: ...

    def take(self) -> Any: ...


def as_frame_session(session: Session) -> FrameSession | None:
    """The session itself where it is a FrameSession, else None."""
    return session if hasattr(type(session), "take") else None  # type: ignore[return-value]


class WorkerSession:
    """A Session for a library that only knows blocking calls: `execute` runs on a thread of its own, so that `start` returns at once."""

    def __init__(self, shape: tuple[int, ...], name: str) -> None:
        self.input: NDArray[np.float32] = np.zeros(shape, np.float32)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._running: Future[NDArray[Any]] | None = None

    def execute(self, batch: int) -> NDArray[Any]:
        """Runs the first `batch` images of `input` and gives their output."""
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
    """Raises EngineError where the plan was built by a newer `package` than the `version` that is installed here.

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
