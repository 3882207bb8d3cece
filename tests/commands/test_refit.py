"""build-engine --strip and refit as a person types them, where there is no GPU: real plans without weights, and every refusal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from small_network import Small, write_small

from rtformer_deploy.cli import main

pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx")

Call = Callable[..., Result]
BUILD = ("build-engine", "model.onnx", "--backend", "tensorrt-rtx", "--threads", 1)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Small:
    monkeypatch.chdir(tmp_path)
    return write_small(tmp_path)


@pytest.fixture
def call(small: Small) -> Call:
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])
