"""What the benchmarks share, and that their figures keep the keys of the results that are kept in benchmarks/results."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from helpers import tiny_spec

from rtformer_deploy import save_png

SCRIPTS = ("harness", "cpu", "int8")


@pytest.fixture
def scripts(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    monkeypatch.syspath_prepend(root / "benchmarks")
    yield {name: importlib.import_module(name) for name in SCRIPTS}
    for name in SCRIPTS:
        sys.modules.pop(name, None)


@pytest.fixture
def harness(scripts: dict[str, ModuleType]) -> ModuleType:
    return scripts["harness"]


def committed(root: Path, name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((root / "benchmarks" / "results" / f"{name}.json").read_text())
    return result


ECHO = """
import json, sys
name = sys.argv[sys.argv.index("--worker") + 1]
for line in sys.stdin:
    print(json.dumps({"name": name, "frame": int(line)}), flush=True)
"""


def test_contestants_are_called_in_turn_and_the_warmup_is_left_out(harness: ModuleType, tmp_path: Path) -> None:
    script = tmp_path / "echo.py"
    script.write_text(ECHO)
    rounds: list[int] = []
    answers = harness.call_in_turn(str(script), tmp_path, ["a", "b"], frames=2, rounds=3, after=lambda: rounds.append(1), warmup=1)
    assert answers == {name: [{"name": name, "frame": frame} for frame in (0, 1, 0)] for name in ("a", "b")}
    assert len(rounds) == 4


def test_a_worker_that_ends_early_is_named(harness: ModuleType, tmp_path: Path) -> None:
    script = tmp_path / "silent.py"
    script.write_text("input()")
    with pytest.raises(SystemExit, match="the worker a ended early"):
        harness.call_in_turn(str(script), tmp_path, ["a"], frames=1, rounds=1)


def test_cases_are_variants_at_sizes(harness: ModuleType, tmp_path: Path) -> None:
    parser = harness.command_line("a benchmark")
    harness.add_cases(parser, [(64, 128)])
    cases = list(harness.cases(parser.parse_args(["--weights", str(tmp_path / "slim.pdparams"), "--sizes", "64x128", "32x64"])))
    assert [(case["variant"], case["size"], case["weights"] is None) for case in cases] == [
        ("slim", (64, 128), False),
        ("slim", (32, 64), False),
        ("base", (64, 128), True),
        ("base", (32, 64), True),
    ]


def test_frames_are_cut_to_the_shape_in_the_middle(harness: ModuleType, tmp_path: Path) -> None:
    picture = np.zeros((40, 100, 3), np.uint8)
    picture[:, 30:70] = 255  # the square in the middle
    save_png(tmp_path / "a.png", picture, mark=False)
    save_png(tmp_path / "b.png", picture, mark=False)
    frames = harness.frames_at(tmp_path, (20, 20), 1)
    assert frames.shape == (1, 20, 20, 3)
    assert (frames == 255).all()
    assert harness.frames_at(None, (20, 30), 5).shape == (1, 20, 30, 3)


def test_an_output_that_cannot_be_written_is_told_before_the_work(
    harness: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> dict[str, Any]:
        raise AssertionError("nothing may be measured")

    assert harness.run_script(tmp_path / "nowhere" / "figures.json", work) is None
    assert "Cannot write" in capsys.readouterr().err


def test_figures_are_stamped_and_written(harness: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    harness.run_script(path, lambda: harness.stamped("something", {"rounds": 3}))
    written = json.loads(path.read_text())
    assert (written["what"], written["rounds"]) == ("something", 3)
    assert {"cpu", "cores_usable", "python", "packages"} <= written["environment"].keys()


@pytest.mark.parametrize("name", ["cpu", "int8", "train"])
def test_what_is_committed_says_when_and_where_it_was_measured(root: Path, name: str) -> None:
    assert {"when", "environment"} <= committed(root, name).keys()


def test_rows_keep_the_keys_of_the_committed_ones(root: Path, scripts: dict[str, ModuleType]) -> None:
    stages = {"preprocess": 0.001, "engine": 0.098, "postprocess": 0.001}
    answers = [{"seconds": 0.1, "stages": stages, "idle": 50.0, "peak": 80.0}]
    contestants = committed(root, "cpu")["cases"][0]["contestants"]
    row = scripts["cpu"].row_of(answers, 0.0)
    assert row.keys() == contestants["ours-openvino"].keys()
    assert row["pre_and_post_share"] == pytest.approx(0.02)
    assert scripts["cpu"].row_of([answers[0] | {"stages": {}}], 0.0).keys() == contestants["torch"].keys()
    timed = scripts["int8"].latency_row([{"stages": [1.0, 98.0, 1.0], "peak": 80.0}])
    assert timed.keys() < committed(root, "int8")["engines"]["int8-mse-openvino"].keys()
    assert timed["frame_ms"] == 100.0


def test_the_committed_verdict_follows_from_the_committed_figures(root: Path, scripts: dict[str, ModuleType]) -> None:
    result = committed(root, "int8")
    assert scripts["int8"].judge(result["engines"], result["default_method"]) == result["verdict"]


PEER = """#!/bin/sh
cp "$2" "$4"
echo chatter
echo '{"version": "1.0"}'
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for the peer's Python is a shell script")
def test_the_peer_gets_the_model_and_the_preprocessed_images(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(PEER)
    python.chmod(0o755)
    save_png(tmp_path / "a.png", np.zeros((40, 100, 3), np.uint8))
    (tmp_path / "flat.onnx").write_bytes(b"a model")
    assert scripts["int8"].quantise_with_peer(str(python), tmp_path, [tmp_path / "a.png"], tiny_spec()) == {"version": "1.0"}
    assert (tmp_path / "peer.onnx").read_bytes() == b"a model"
    assert np.load(tmp_path / "inputs.npy").shape == (1, 3, 64, 96)
    python.write_text("#!/bin/sh\necho no such module >&2; exit 1\n")
    with pytest.raises(SystemExit, match="the peer failed:\nno such module"):
        scripts["int8"].quantise_with_peer(str(python), tmp_path, [tmp_path / "a.png"], tiny_spec())
