"""What takes part in a comparison, how its process is asked, and what it answers. All of it is JSON between two processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from ..errors import DeployError
from ..types import Batch, Text

_Milliseconds = Annotated[float, Meta(ge=0, le=1e9)]


@dataclass(frozen=True, slots=True)
class Contestant:
    """A plan, an ONNX model or a network's weights under a `name` that no other contestant has; opened as `opening.open_any` does."""

    name: Text
    file: str
    threads: int | None = None
    device: int = 0


@dataclass(frozen=True, slots=True)
class Setup:
    """A process's first line: who it is, and the (H, W) of the frame that all contestants get."""

    contestant: Contestant
    frame_size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Call:
    """Every further line: measure for `seconds`, half of them the engine alone and half end to end, after `warmup` seconds."""

    seconds: float
    warmup: float = 0.0


@dataclass(frozen=True, slots=True)
class Ready:
    """The answer to Setup once the contestant is open: the (H, W) of its input, and the memory that opening took in MiB."""

    input_size: tuple[int, int]
    opened_mb: float


@dataclass(frozen=True, slots=True)
class Turn:
    """The answer to a Call: the latency of each step in ms, and the peak memory in MiB above what the process held before it opened.

    A step is of `batch` frames: one, unless the contestant takes no fewer.
    """

    engine_ms: Annotated[tuple[_Milliseconds, ...], Meta(min_length=1)]
    frame_ms: Annotated[tuple[_Milliseconds, ...], Meta(min_length=1)]
    peak_mb: Annotated[float, Meta(ge=0, le=1e9)]
    batch: Batch = 1


@dataclass(frozen=True, slots=True)
class Refusal:
    """The answer that comes instead if something fails: the lines of a DeployError."""

    what: str
    hint: str | None = None
    details: tuple[str, ...] = ()

    @classmethod
    def of(cls, error: DeployError) -> Refusal:
        return cls(error.what, error.hint, error.details)


@dataclass(frozen=True, slots=True)
class Answer:
    """A line that a process writes; one of the three is set."""

    ready: Ready | None = None
    turn: Turn | None = None
    refusal: Refusal | None = None
