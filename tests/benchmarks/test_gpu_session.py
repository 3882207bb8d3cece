"""benchmarks/gpu_session.py with parts of a few lines, and benchmarks/gpu_probe.py on a machine without a GPU."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
from helpers import load_file

WRITES = "import sys; print('measured'); open(sys.argv[1].partition('=')[2], 'w').write('{}')"
HANGS = "import subprocess, sys, time; print('begun', flush=True); subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"


@pytest.fixture
def session(root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(root / "benchmarks")
    return load_file(root / "benchmarks" / "gpu_session.py", "benchmark_gpu_session")


def test_a_part_that_fails_or_hangs_does_not_stop_the_others(
    session: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = {
        "first": session.Part(1, ("-c", "print('broken'); raise SystemExit(3)"), None),
        "second": session.Part(1, ("-c", HANGS), None),
        "third": session.Part(8, ("-c", WRITES)),
    }
    out = tmp_path / "made" / "out"
    results = session.run_session(out, 20, list(parts), parts)
    assert {name: result["code"] for name, result in results.items()} == {"first": 3, "second": None, "third": 0}
    assert {name: result["figures"] for name, result in results.items()} == {"first": "", "second": "", "third": "third.json"}
    assert results["second"]["seconds"] < 15, "its own processes end with it"
    assert (out / "first.txt").read_text() == "broken\n"
    assert (out / "second.txt").read_text() == "begun\n"
    assert json.loads((out / "session.json").read_text()) == results
    told = capsys.readouterr().out
    assert "== first: ended with 3" in told
    assert "== second: took too long" in told
    assert "measured\n== third: done" in told


def test_an_earlier_runs_figures_are_not_this_ones(session: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "only.json").write_text("old")
    results = session.run_session(tmp_path, 30, ["only"], {"only": session.Part(1, ("-c", "raise SystemExit(1)"))})
    assert results["only"]["figures"] == ""
    assert not (tmp_path / "only.json").exists()


def test_what_is_left_is_shared_among_those_that_follow(session: ModuleType) -> None:
    parts = {"a": session.Part(1, ()), "b": session.Part(3, ())}
    assert session.allowance(100, "a", ["a", "b"], parts) == 25
    assert session.allowance(90, "b", ["a", "b"], parts) == 90


def test_every_part_names_a_script_that_takes_its_options(session: ModuleType, root: Path) -> None:
    assert next(iter(session.PARTS)) == "probe"
    for part in session.PARTS.values():
        assert part.command[0] == "-m" or (root / part.command[0]).is_file()
    gpu = load_file(root / "benchmarks" / "gpu.py", "benchmark_gpu_of_session")
    for name in ("frames", "engines"):
        assert gpu.parse(session.PARTS[name].command[1:]).parts


def test_the_command_line(session: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked = []

    def run(*given: object) -> dict[str, dict[str, None]]:
        asked.append(given)
        return {"probe": {"code": None}}

    monkeypatch.setattr(session, "run_session", run)
    assert session.main([str(tmp_path), "--only", "tests", "probe", "--limit", "60"]) == 1
    assert asked == [(tmp_path, 60, ["probe", "tests"])]
    with pytest.raises(SystemExit):
        session.main([str(tmp_path), "--limit", "0"])
    monkeypatch.undo()
    (tmp_path / "file").write_text("")
    assert session.main([str(tmp_path / "file")]) == 1
    assert "Cannot write into" in capsys.readouterr().err


def test_the_probe_without_a_gpu_says_so_and_tries_the_rest(
    session: ModuleType, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rtformer_deploy.nvidia.driver._ask", lambda: ((), "no NVIDIA driver is installed"))
    probe = load_file(root / "benchmarks" / "gpu_probe.py", "benchmark_gpu_probe")
    monkeypatch.setitem(probe.STEPS, "a TensorRT-RTX engine", probe.optional("no_such_module"))
    assert probe.main(["--json", str(tmp_path / "probe.json")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "failed  GPU: RuntimeError: no NVIDIA driver is installed"
    assert "missing a TensorRT-RTX engine: not installed" in lines
    found = json.loads((tmp_path / "probe.json").read_text())["found"]
    assert list(found) == list(probe.STEPS)
    assert found["torch"]["state"] == "failed"
    assert "has no CUDA" in found["torch"]["says"]
