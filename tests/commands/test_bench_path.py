"""bench with files: a model opened, measured and reported, and what does not go together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import SIZE, tiny_model

from rtformer_deploy.commands.bench import BenchRequest, bench_path
from rtformer_deploy.errors import ImageError, UsageError
from rtformer_deploy.formats.model_file import save_model
from rtformer_deploy.pictures.report import render


def test_a_model_from_file_to_report(tmp_path: Path) -> None:
    save_model(tiny_model("batch"), tmp_path / "model.onnx")
    report = bench_path(BenchRequest(tmp_path / "model.onnx", seconds=0.05, warmup=0, batch=2, lanes=2, threads=1))
    assert report.model["backend"] == "onnxruntime"
    assert (report.frame["height"], report.frame["width"]) == SIZE
    assert report.frame["source"]
    assert report.peak_memory_mb is not None
    assert report.peak_memory_mb >= 0
    assert (report.mode, report.batch) == ("throughput", 2)


def test_a_bad_image_is_found_before_the_model_is_opened(tmp_path: Path) -> None:
    with pytest.raises(ImageError):
        bench_path(BenchRequest(tmp_path / "no.onnx", image=tmp_path / "no.jpg"))


def test_a_model_at_a_rate_to_json_and_page(tmp_path: Path) -> None:
    save_model(tiny_model("batch"), tmp_path / "model.onnx")
    report = bench_path(BenchRequest(tmp_path / "model.onnx", seconds=0.05, warmup=0, lanes=2, threads=1, fps=100))
    data = json.loads(json.dumps(report.to_json()))["paced"]
    assert (data["fps"], data["frames_due"], data["lanes"], data["deadline_ms"]) == (100, 5, 2, 10)
    assert {"misses", "miss_share", "late_starts", "p50_ms", "p99_ms", "jitter_ms", "interval_std_ms"} <= data.keys()
    assert "dropped" in data["conventions"]["queue"]
    assert report.gpu is None
    page = render(report)
    assert "deadline misses" in page
    assert "10.00 ms" in page


def test_options_that_do_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs a rate"):
        bench_path(BenchRequest(tmp_path / "no.onnx", deadline_ms=5))
    with pytest.raises(UsageError, match="single frames"):
        bench_path(BenchRequest(tmp_path / "no.onnx", fps=30, batch=2))
