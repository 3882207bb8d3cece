"""`compare --formats` with a small network: the whole way once, going on, a format that crashes, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from comparing import FakeProcess, without_processes
from helpers import hide
from small_network import Small, write_small

from rtformer_deploy import machine
from rtformer_deploy.backends.onnxruntime.providers import PROVIDERS
from rtformer_deploy.cli import main
from rtformer_deploy.commands import compare_formats as module
from rtformer_deploy.comparison import turns
from rtformer_deploy.comparison.contestant import Check, Checked
from rtformer_deploy.comparison.formats import FORMATS
from rtformer_deploy.errors import EngineError

SOME = ("PyTorch", "ONNX Runtime FP32", "ONNX Runtime INT8", "OpenVINO FP32", "OpenVINO EP FP32", "TensorRT FP32")

Call = Callable[..., Result]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return write_small(tmp_path_factory.mktemp("small"))


@pytest.fixture
def call(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs `compare --formats` on a few formats, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    hide(monkeypatch, "tensorrt")
    monkeypatch.setitem(PROVIDERS, "openvino", replace(PROVIDERS["openvino"], module="no_such_module_here"))
    monkeypatch.setattr(module, "FORMATS", tuple(each for each in FORMATS if each.name in SOME))
    fast = ["--rounds", "1", "--seconds", "0.1", "--threads", "1", "-o", "out"]
    return lambda *words: CliRunner().invoke(main, ["compare", str(small.model), "--formats", *fast, *map(str, words)])


def rows() -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads(Path("out/comparison.json").read_text())["rows"]}


def test_the_whole_way(small: Small, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    result = call("--dataset", small.dataset, "--root", small.root)
    assert result.exit_code == 0, result.output
    found = rows()
    assert list(found) == list(SOME)
    assert {name: row["status"] for name, row in found.items()} == {
        name: "done" if name in ("ONNX Runtime FP32", "OpenVINO FP32") else "failed" for name in SOME
    }
    for name in ("ONNX Runtime FP32", "OpenVINO FP32"):
        row = found[name]
        assert (row["why"], row["precision"]["state"], row["flips"]) == (None, "verified", 0)
        assert set(row["flips_on"]) == {"sample", "noise"}
        assert 0 < row["miou"] < 100
        assert row["bytes"] == Path("out", f"{name.lower().replace(' ', '-')}.plan").stat().st_size
        assert row["measured"]["engine"]["ratio"][0] > 0
        assert row["measured"]["frame"]["p99_ms"] >= row["measured"]["frame"]["p50_ms"] > 0
    assert found["ONNX Runtime FP32"]["miou"] == found["OpenVINO FP32"]["miou"]
    for name, why in {
        "PyTorch": "none come with small",
        "ONNX Runtime INT8": "INT8 needs ranges, and none come with small",
        "OpenVINO EP FP32": "onnxruntime-ep-openvino is not installed",
        "TensorRT FP32": "tensorrt is not installed",
    }.items():
        assert why in found[name]["why"][0], name
        assert name in result.output
    plans = {path: path.stat().st_mtime_ns for path in Path("out").glob("*.plan")}
    again = call("--dataset", small.dataset, "--root", small.root, "--resume")
    assert again.exit_code == 0, again.output
    assert rows() == found
    assert {path: path.stat().st_mtime_ns for path in plans} == plans, "a plan was built again"
    damaged = Path("out/openvino-fp32.plan")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert call("--dataset", small.dataset, "--root", small.root, "--resume").exit_code == 0
    assert damaged.stat().st_size == found["OpenVINO FP32"]["bytes"]
    kinds = [json.loads(line)["kind"] for line in Path("out/compare.state.jsonl").read_text().splitlines()]
    assert kinds.count("round") == 2, "the plan that was built again has to be timed again"
    assert kinds.count("check") == 3
    assert call("--resume").exit_code == 2  # without the dataset it is another run
    monkeypatch.setattr(machine, "cpu_flags", lambda: frozenset({"sve"}))  # another CPU, maybe of the same name
    assert "machine differ" in call("--dataset", small.dataset, "--root", small.root, "--resume").output


def test_a_format_that_crashes_is_a_row_and_the_others_go_on(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    class Crashing(FakeProcess):
        def check(self, check: Check) -> Checked:
            if self.name == "OpenVINO FP32":
                raise EngineError(f"The process of {self.name} crashed (SIGSEGV).")
            return Checked({"sample": 0.25}, notes=("It is slow.",))

    without_processes(monkeypatch)
    monkeypatch.setattr(turns, "Process", Crashing)
    result = call()
    assert result.exit_code == 0, result.output
    found = rows()
    assert found["OpenVINO FP32"]["status"] == "failed"
    assert found["OpenVINO FP32"]["why"] == ["The process of OpenVINO FP32 crashed (SIGSEGV)."]
    assert (found["ONNX Runtime FP32"]["flips"], found["ONNX Runtime FP32"]["miou"]) == (0.25, None)
    assert found["ONNX Runtime FP32"]["measured"]["rounds"] == 1
    assert "ONNX Runtime FP32: It is slow." in result.output
    assert sorted(FakeProcess.opened) == sorted(FakeProcess.closed)


def test_what_is_refused_before_the_work(small: Small, call: Call) -> None:
    for words, message in (
        (["--weights", "a", "--weights", "b"], "give --weights once"),
        (["--dataset", "camvid", "--root", small.root], "camvid"),
        (["--fp16"], "cannot be combined with --formats"),
    ):
        result = call(*words)
        assert result.exit_code in (1, 2), words
        assert message in result.output
        assert not Path("out/compare.state.jsonl").exists()
    Path("out").mkdir()
    Path("out/openvino-fp32.plan").write_text("mine")
    refused = call()
    assert refused.exit_code == 1
    assert Path("out/openvino-fp32.plan").read_text() == "mine"
