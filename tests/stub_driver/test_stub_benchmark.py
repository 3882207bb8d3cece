"""benchmarks/gpu.py with one of our engines, on a fake TensorRT over real cuda.core, and benchmarks/lane_overhead.py."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
from stub import StubDriver
from tensorrt_lab import TensorRTLab
from tensorrt_plans import make_engine

from rtformer_deploy import save_engine, save_png
from rtformer_deploy.files import sha256
from rtformer_deploy.lanes.graphs import LaneGraphs


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


def test_the_callers_own_time(driver: StubDriver, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(root / "benchmarks")
    monkeypatch.setattr("rtformer_deploy.lanes.kernels.compile_kernel_file", None)  # the script sets both; this puts them back
    monkeypatch.setattr(LaneGraphs, "_doubt", None)
    overhead = importlib.import_module("lane_overhead")
    words = ["--size", "64x96", "--lanes", "2", "--steps", "4", "--rounds", "2", "--json", str(tmp_path / "made.json")]
    code = overhead.main(words)
    made = json.loads((tmp_path / "made.json").read_text())
    assert code == (0 if all(goal["met"] for goal in made["goals"].values()) else 1)
    kept = json.loads(overhead.RESULT.read_text())
    assert made.keys() == kept.keys()
    for kind in ("host", "pinned"):
        assert made[kind].keys() == kept[kind].keys() >= {"median_ms", "p99_ms", "cpu_median_ms", "cpu_p99_ms"}
        assert made[kind]["steps"] == 8
        assert 0 < made[kind]["median_ms"] <= made[kind]["p99_ms"]
