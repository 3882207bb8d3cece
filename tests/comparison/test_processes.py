"""A contestant's process: what it answers, and what is said if it cannot open, crashes or hangs."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from helpers import tiny_model

from rtformer_deploy.comparison import processes as processes_module
from rtformer_deploy.comparison.contestant import Contestant
from rtformer_deploy.comparison.processes import Process
from rtformer_deploy.errors import DeployError, EngineError
from rtformer_deploy.formats.model_file import save_model


@pytest.fixture
def contestant(tmp_path: Path) -> Contestant:
    save_model(tiny_model(batch=2), tmp_path / "tiny.onnx")
    return Contestant("tiny", str(tmp_path / "tiny.onnx"), threads=1)


def test_it_measures_when_it_is_called_and_a_crash_is_told(contestant: Contestant) -> None:
    with Process(contestant, (48, 80)) as process:
        assert process.ready.input_size == (64, 96)
        turn = process.turn(0.02)
        assert turn.batch == 2
        assert len(turn.engine_ms) >= 3
        assert min(turn.frame_ms) > 0
        assert turn.peak_mb > 0
        os.kill(process._process.pid, signal.SIGKILL)
        process._process.wait()
        with pytest.raises(EngineError, match=r"The process of tiny crashed \(SIGKILL\)"):
            process.turn(0.02)


def test_one_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match=r"Cannot read an engine plan .*missing\.plan"):
        Process(Contestant("missing", str(tmp_path / "missing.plan")), (48, 80))


def test_one_that_hangs_is_ended(contestant: Contestant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes_module, "_CODE", "import sys; sys.stdin.readline(); print('', end='', flush=True); sys.stdin.readline()")
    monkeypatch.setattr(processes_module, "OPEN_LIMIT", 0.2)
    with pytest.raises(EngineError, match=r"tiny gave no answer within 0 s"):
        Process(contestant, (48, 80))


def test_the_last_line_of_an_unexpected_end_is_told(contestant: Contestant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes_module, "_CODE", "import sys; sys.stdin.readline(); raise SystemExit('out of luck')")
    with pytest.raises(EngineError, match=r"The process of tiny ended with code 1: out of luck\."):
        Process(contestant, (48, 80))
