"""Contestants without processes, for tests of what is done with turns and rounds."""

from __future__ import annotations

import pytest

from rtformer_deploy.comparison import turns
from rtformer_deploy.comparison.contestant import Contestant, Turn
from rtformer_deploy.errors import EngineError


def turn(engine: float, frame: float, batch: int = 1) -> Turn:
    return Turn((engine, engine), (frame, frame, frame), 1.0, batch)


class FakeProcess:
    """A contestant's process without one: it fails in the turns that `breaks` says (0: at the opening), and is closed once."""

    opened: list[str]
    called: list[str]
    closed: list[str]
    breaks: dict[str, int]

    def __init__(self, contestant: Contestant, frame_size: tuple[int, int]) -> None:
        if self.breaks.get(contestant.name) == 0:
            raise EngineError(f"{contestant.name} cannot be opened.")
        self.name = contestant.name
        self.opened.append(self.name)

    def turn(self, seconds: float, warmup: float) -> Turn:
        if self.breaks.get(self.name) == self.called.count(self.name) + 1:
            raise EngineError(f"The process of {self.name} crashed (SIGSEGV).")
        self.called.append(self.name)
        return turn(1000 * seconds, 2000 * seconds)

    def close(self) -> None:
        self.closed.append(self.name)


def without_processes(monkeypatch: pytest.MonkeyPatch) -> type[FakeProcess]:
    """Replaces contestants' processes."""
    FakeProcess.opened, FakeProcess.called, FakeProcess.closed, FakeProcess.breaks = [], [], [], {}
    monkeypatch.setattr(turns, "Process", FakeProcess)
    monkeypatch.setattr(turns, "PAUSE", 0.0)
    return FakeProcess
