"""The small network as model.onnx in the working folder, and the command line; a module may have its own of either."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from small_network import Small, write_small

from rtformer_deploy.cli import main


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Small:
    monkeypatch.chdir(tmp_path)
    return write_small(tmp_path)


@pytest.fixture
def call(small: Small) -> Callable[..., Result]:
    """Runs a command where `small` is."""
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])
