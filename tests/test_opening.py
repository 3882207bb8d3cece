"""Plans, opened from their files: a precision that was only requested is read at the first opening and kept in the sidecar."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
from helpers import tiny_model, tiny_spec

from rtformer_deploy import opening
from rtformer_deploy.backends import build
from rtformer_deploy.errors import PrecisionError
from rtformer_deploy.formats.engine_file import load_info, save_engine, save_info
from rtformer_deploy.types import BuildOptions, Engine, PrecisionFound

REQUESTED = PrecisionFound("fp16", "requested", {"fp16": 2})


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An engine whose precision could not be read where it was built; opening it finds what `found` says."""
    spec = tiny_spec()
    engine = build(tiny_model(), spec, "onnxruntime", BuildOptions())
    info = dataclasses.replace(engine.info, precision=REQUESTED)
    save_engine(Engine(engine.plan, info), tmp_path / "engine.plan")
    return tmp_path / "engine.plan"


def complete_as(monkeypatch: pytest.MonkeyPatch, found: PrecisionFound) -> None:
    def complete(engine: Engine, device: int = 0) -> Engine:
        return dataclasses.replace(engine, info=dataclasses.replace(engine.info, precision=found))

    monkeypatch.setattr(opening, "complete_precision", complete)


def test_the_first_open_completes_the_sidecar(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complete_as(monkeypatch, PrecisionFound("fp16", "verified", {"fp16": 2}))
    opening.open_any(plan).close()
    assert load_info(plan).precision.state == "verified"


def test_strict_refuses_a_mismatch_found_at_the_first_open(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complete_as(monkeypatch, PrecisionFound("fp16", "mismatch", {"fp32": 2}, "the engine has 2 compute layers in fp32"))
    with pytest.raises(PrecisionError, match="2 compute layers in fp32"):
        opening.open_any(plan, strict=True)
    opening.open_any(plan).close()
    info = load_info(plan)
    save_info(dataclasses.replace(info, options={**info.options, "strict": True}), plan)
    with pytest.raises(PrecisionError):
        opening.open_any(plan)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_stops_nothing(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complete_as(monkeypatch, PrecisionFound("fp16", "verified", {"fp16": 2}))
    plan.parent.chmod(0o500)
    try:
        opening.open_any(plan).close()
    finally:
        plan.parent.chmod(0o700)
    assert load_info(plan).precision.state == "requested"
