"""benchmarks/gpu.py with one of our engines, on a fake TensorRT over real cuda.core."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
from tensorrt_lab import TensorRTLab
from tensorrt_plans import make_engine

from rtformer_deploy import save_engine, save_png
from rtformer_deploy.files import sha256


def test_our_engine_as_a_contestant_and_its_bench_reports(
    machine: TensorRTLab, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(root / "benchmarks")
    names = ("gpu_lanes", "gpu_contestants", "gpu_floors", "harness")
    frames, contestants, floors, harness = (importlib.import_module(name) for name in names)
    monkeypatch.setattr("rtformer_deploy.commands.bench.on_gpu", lambda runner: False)  # nothing to sample
    engine = make_engine(plan_sha256=sha256(b"plan"))
    save_engine(engine, tmp_path / "tensorrt.plan")
    frame = harness.frames_at(None, engine.info.spec.size, 1)[0]
    np.save(tmp_path / "frame.npy", frame)
    save_png(tmp_path / "frame.png", frame)
    burst, logits = contestants.MAKERS["tensorrt"](tmp_path, {})
    assert logits.shape[0] == 1
    assert len(burst(3)) == 3
    found = frames.bench_plan(tmp_path / "tensorrt.plan", tmp_path / "frame.png", 2, 0.01)
    assert [(report["mode"], report["lanes"]) for report in found.values()] == [("latency", 1), ("throughput", 2)]
    rows = {"torch-compile": {"p50_ms": 1.5}, "tensorrt": {"p50_ms": 1.0}}
    assert None not in {verdict.met for verdict in floors.engine_verdicts(rows, {"tensorrt": found}, ["tensorrt"])}
