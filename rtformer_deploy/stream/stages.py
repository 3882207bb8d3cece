"""How busy each stage of a run is: seconds of work, as shares of the time that passed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

NAMES = ("decode", "segment", "draw", "encode")


@dataclass(slots=True)
class Stages:
    """Busy seconds of each stage, and frames done. Each stage is measured by one thread at a time."""

    busy: dict[str, float] = field(default_factory=lambda: dict.fromkeys(NAMES, 0.0))
    frames: int = 0
    began: float = field(default_factory=time.monotonic)

    @contextlib.contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Adds the time that the block takes to a stage."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.busy[stage] += time.monotonic() - start

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return max(time.monotonic() - self.began, 1e-9)

    @property
    def fps(self) -> float:
        return self.frames / self.seconds

    def shares(self) -> dict[str, float]:
        """Each stage's busy time as a share of the run's; a stage at 1 is what the others wait for. Several decoders may exceed 1."""
        seconds = self.seconds
        return {name: busy / seconds for name, busy in self.busy.items()}

    def line(self) -> str:
        """ "12.3 FPS: decode 10%, segment 98%, draw 5%, encode 20%". Stages that did nothing are left out."""
        shares = ", ".join(f"{name} {share:.0%}" for name, share in self.shares().items() if share > 0)
        return f"{self.fps:.1f} FPS: {shares}"
