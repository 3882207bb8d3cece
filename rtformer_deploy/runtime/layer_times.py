"""How long one layer of an engine takes: what every backend's `layers.py` returns."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from .session import EngineSession

#: The number of first runs that are not counted: they allocate memory and choose or compile kernels.
WARM_UP = 2


@dataclass(frozen=True, slots=True)
class LayerTime:
    """One layer that ran: its name, the library's names for its kind and kernel, its precision ("" if the library does not say), and
    its time in each run in ms. `node` is the model's node that it computes, or the one that it was made for; "" if nobody knows."""

    name: str
    kind: str
    kernel: str
    precision: str
    runs_ms: tuple[float, ...]
    node: str = ""

    @property
    def ms(self) -> float:
        """The median of its runs."""
        return statistics.median(self.runs_ms)


def run_once(engine: EngineSession, batch: int) -> Any:
    """Runs an engine once on its current input, waits, and returns the output."""
    engine.start(batch)
    return engine.wait()
