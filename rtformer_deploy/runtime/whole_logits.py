"""What the runners that work on logits need of the runner inside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self

from ..errors import UsageError
from ..types import Frame, LabelMap, Logits, ModelSpec


class LogitsRunner(Protocol):
    """As much of a Runner as is needed to work on its logits."""

    @property
    def spec(self) -> ModelSpec: ...

    def run(self, frames: Sequence[Frame]) -> list[LabelMap]: ...

    def logits(self, frames: Sequence[Frame]) -> Logits: ...


class OpenLogitsRunner(LogitsRunner, Protocol):
    """A LogitsRunner that is closed when its context ends."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


def check_has_logits(spec: ModelSpec, wanted_by: str) -> None:
    """Raises UsageError if an engine gives labels only; `wanted_by` begins the message, as in "Tiles need"."""
    if spec.head == "labels":
        raise UsageError(
            f"{wanted_by} logits; this engine was built with --head labels and gives labels only.",
            "Export the model with --head lowres and build it again.",
        )
