"""What takes part in a comparison, how its process is asked, and what it answers. All of it is JSON between two processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from ..errors import DeployError
from ..types import Batch, Share, Text

_Milliseconds = Annotated[float, Meta(ge=0, le=1e9)]


@dataclass(frozen=True, slots=True)
class AsNetwork:
    """How a contestant's weights are opened in PyTorch: at an input of (H, W) `size` with this batch, compiled by torch.compile or not."""

    size: tuple[int, int]
    batch: int = 1
    compiled: bool = False


@dataclass(frozen=True, slots=True)
class Contestant:
    """A plan, an ONNX model or a network's weights under a `name` that no other contestant has.

    It is opened as `opening.open_any` does, or as `network` says.
    """

    name: Text
    file: str
    threads: int | None = None
    device: int = 0
    network: AsNetwork | None = None


@dataclass(frozen=True, slots=True)
class Setup:
    """A process's first line: who it is, and the (H, W) of the frame that all contestants get."""

    contestant: Contestant
    frame_size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Call:
    """Measure for `seconds`, half of them the engine alone and half end to end, after `warmup` seconds."""

    seconds: float
    warmup: float = 0.0


@dataclass(frozen=True, slots=True)
class Labelled:
    """A labelled split, as `datasets.open_dataset` takes it."""

    dataset: str
    root: str
    split: str


@dataclass(frozen=True, slots=True)
class Check:
    """Compare the label maps with those of an ONNX model in ONNX Runtime, and score them on a labelled split if there is one."""

    model: str
    labelled: Labelled | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """Every further line; one of the two is set."""

    call: Call | None = None
    check: Check | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """The answer to Setup once the contestant is open: the (H, W) of its input."""

    input_size: tuple[int, int]


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
class Checked:
    """The answer to a Check: the share of pixels that change class, by frame, mIoU from 0 to 1, and notes for a person."""

    changed: Mapping[str, Share]
    miou: Share | None = None
    notes: tuple[str, ...] = ()


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
    """A line that a process writes; one of them is set."""

    ready: Ready | None = None
    turn: Turn | None = None
    checked: Checked | None = None
    refusal: Refusal | None = None
