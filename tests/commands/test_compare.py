"""`compare --suite` with small networks: the whole way once, going on after an interruption, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from comparing import FakeProcess, without_processes
from helpers import StoppedError, hide, tiny_model, tiny_spec
from small_network import write_small

from rtformer_deploy import machine
from rtformer_deploy.cli import main
from rtformer_deploy.commands import compare_suite as compare_suite_module
from rtformer_deploy.commands.choices import RangesSource
from rtformer_deploy.commands.compare import CompareRequest, compare
from rtformer_deploy.comparison import prepare as prepare_module
from rtformer_deploy.comparison.result import Compared
from rtformer_deploy.errors import EngineError, ModelError, OutputError
from rtformer_deploy.runtime.frame_runner import FrameRunner
from rtformer_deploy.types import Feedback

RECIPE = """
name = "{name}"
dataset = "data/small.toml"
[architecture]
{architecture}
[input]
size = [64, 128]
[published.article]
source = "an article"
split = "val"
size = "1024x2048"
miou = 71.5
fps = 12.5
device = "an abacus"
"""
SUITE = """
title = "Small ones"
labels = "small"
size = [60, 120]
reference = "Small"
[[network]]
name = "Small"
recipe = "small.toml"
[[network]]
name = "Eighths"
recipe = "eighths.toml"
"""
STDC = 'name = "stdc"\nbase_channels = 8\nblocks = [2, 2, 2]'
DDRNET = 'name = "ddrnet"\nplanes = 8\nspp_planes = 8\nhead_planes = 8\npadding = "both"'

Call = Callable[..., Result]


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a suite of two small networks, a dataset and a model that was made for it."""
    folder = tmp_path_factory.mktemp("suite")
    write_small(folder)
    (folder / "small.toml").write_text(RECIPE.format(name="small", architecture=STDC))
    (folder / "eighths.toml").write_text(RECIPE.format(name="eighths", architecture=DDRNET))
    (folder / "suite.toml").write_text(SUITE)
    return folder


@pytest.fixture
def call(suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs `compare` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(main, ["compare", *map(str, words)])


def words(suite: Path, *more: object, output: str = "out") -> list[object]:
    fast = ["--rounds", 2, "--seconds", 0.1, "--threads", 1, "--backend", "onnxruntime", "--plans", suite / "plans"]
    data = ["--add", suite / "model.onnx", "--dataset", suite / "data" / "small.toml", "--root", suite / "data"]
    return ["--suite", suite / "suite.toml", "-o", output, *fast, *data, *more]


def found(folder: str = "out") -> dict[str, Any]:
    report: dict[str, Any] = json.loads(Path(folder, "comparison.json").read_text())
    return report


def test_the_whole_way(suite: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    result = call(*words(suite))
    assert result.exit_code == 0, result.output
    report = found()
    small, eighths, own = report["rows"]
    assert (small["name"], small["status"], small["random_weights"], small["miou"]) == ("Small", "done", True, None)
    assert (small["input"], small["classes"], small["precision_found"]) == ([60, 120], 3, "verified")
    assert small["parameters"] > 50_000
    assert small["macs"] > 1e6
    assert small["products"] == 0  # it has no attention
    assert small["measured"]["engine"]["ratio"] == [1.0, 1.0, 1.0]
    assert small["published"]["article"]["device"] == "an abacus"
    assert eighths["status"] == "failed"
    assert "multiples of 8, and 60x120 is not" in eighths["why"][0]
    assert eighths["measured"] is None
    assert (own["name"], own["own"], own["status"]) == ("model", True, "done")
    assert 0 < own["miou"] < 100
    assert own["measured"]["rounds"] == 2
    low, high = own["measured"]["engine"]["ratio"][1:]
    assert 0 < low <= own["measured"]["engine"]["ratio"][0] <= high
    for text in ("Small ones", "Published by others", "an abacus", "takes no part", "Random weights"):
        assert text in result.output, text
    assert {path.name for path in Path("out").iterdir()} == {
        "compare.state.jsonl", "comparison.json", "comparison.svg", "comparison.html",
    }  # fmt: skip
    assert "12.5" in Path("out/comparison.html").read_text()

    monkeypatch.setattr(prepare_module, "build_engine", None)  # the plans are kept, and nothing is built again
    again = call(*words(suite, "--resume"))
    assert again.exit_code == 0, again.output
    assert "Going on after 2 rounds." in again.output
    assert found()["rows"] == report["rows"]
    other = call(*words(suite, "--size", "64x120", "--resume"))
    assert other.exit_code == 2
    assert "belongs to another run: frame, contestants differ" in other.output
    with monkeypatch.context() as patch:
        patch.setattr(machine, "cpu_flags", lambda: frozenset({"sve"}))  # another CPU, maybe of the same name
        assert "another run: machine differ" in call(*words(suite, "--resume")).output
    twice = call(*words(suite))
    assert "out holds a run already" in twice.output


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, call: Call) -> type[FakeProcess]:
    """Nothing is exported, and contestants have no processes."""
    monkeypatch.setattr(prepare_module, "_model", lambda entrant, preparation, say: (tiny_model(), tiny_spec(), None))
    return without_processes(monkeypatch)


def request(suite: Path, **values: Any) -> CompareRequest:
    return CompareRequest(
        Path("out"), suite=str(suite / "suite.toml"), **{"rounds": 3, "seconds": 0.3, "threads": 1, "backend": "onnxruntime", **values}
    )


def silent(line: str) -> None:
    """Says nothing."""


def rounds_of(compared: Compared) -> list[int]:
    return [row["measured"]["rounds"] for row in compared.facts["rows"]]


def test_an_engine_that_cannot_be_scored_takes_no_part_and_the_others_go_on(
    suite: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path, **options: object) -> FrameRunner:
        raise EngineError("It cannot be opened.")

    without_processes(monkeypatch)
    monkeypatch.setattr(compare_suite_module, "open_any", broken)
    result = call(*words(suite))
    assert result.exit_code == 0, result.output
    assert [(row["name"], row["status"]) for row in found()["rows"]] == [("Small", "done"), ("Eighths", "failed"), ("model", "failed")]
    assert found()["rows"][2]["why"] == ["It cannot be opened."]
    assert "model takes no part: It cannot be opened." in result.output


def test_weights_are_inputs_though_their_name_has_an_equals_sign(suite: Path, quick: type[FakeProcess]) -> None:
    for name in ("lr=0.1", "x"):
        Path(name).mkdir()
    weights = Path("lr=0.1/w.json")
    weights.write_text("{}")
    with pytest.raises(OutputError, match=r"it is itself an input"):
        compare(request(suite, weights=(f"Small={weights}",), json_path=weights), Feedback(silent))


def test_an_interrupted_run_goes_on(suite: Path, quick: type[FakeProcess]) -> None:
    def stop(phase: str, done: int, total: int) -> None:
        if phase.startswith("round 2"):
            raise StoppedError

    with pytest.raises(StoppedError):
        compare(request(suite), Feedback(silent, stop))
    assert (quick.opened, quick.closed) == (["Small", "Eighths"], ["Small", "Eighths"])
    assert not Path("out/comparison.json").exists()
    with open("out/compare.state.jsonl", "a") as file:
        file.write('{"kind": "round", "turns": {"Sm')  # a kill in the middle of a line
    said: list[str] = []
    assert rounds_of(compare(request(suite, resume=True), Feedback(said.append))) == [3, 3]
    assert "Going on after 1 round." in said
    assert quick.called.count("Small") == 3
    assert rounds_of(compare(request(suite, resume=True, rounds=5), Feedback(silent))) == [5, 5]
    assert quick.called.count("Small") == 5


def test_one_that_crashes_is_a_row_with_what_it_had(suite: Path, quick: type[FakeProcess]) -> None:
    quick.breaks = {"Eighths": 2}
    said: list[str] = []
    compared = compare(request(suite), Feedback(said.append))
    assert rounds_of(compared) == [3, 1]
    assert [row["status"] for row in compared.facts["rows"]] == ["done", "failed"]
    assert "Eighths failed: The process of Eighths crashed (SIGSEGV)." in said
    titles = [table.title for table in compared.tables]
    assert titles[:2] == ["What they are", "The engine alone, for frames of 60x120"]
    assert titles[3:] == ["Failed", "Published by others", "Sources"]
    assert compared.tables[3].rows == (("Eighths", "The process of Eighths crashed (SIGSEGV)."),)


def test_without_the_reference_there_are_no_ratios(suite: Path, quick: type[FakeProcess]) -> None:
    quick.breaks = {"Small": 0}
    compared = compare(request(suite), Feedback(silent))
    assert "There are no ratios: Small did not run." in compared.notes
    assert [row["measured"] and row["measured"]["engine"]["ratio"] for row in compared.facts["rows"]] == [None, None]


def test_a_plan_that_was_changed_or_is_of_something_else_is_built_again(suite: Path, quick: type[FakeProcess]) -> None:
    built: list[str] = []
    said = Feedback(silent, lambda phase, done, total: built.append(phase))
    compare(request(suite), said)
    plan, facts = Path("out/plans/Small.plan"), Path("out/plans/Small.facts.json")
    whole, times = plan.read_bytes(), plan.stat().st_mtime_ns
    compare(request(suite, resume=True), said)
    assert plan.stat().st_mtime_ns == times
    plan.write_bytes(whole[:-1])
    compare(request(suite, resume=True), said)
    assert len(plan.read_bytes()) == len(whole)
    key = json.loads(facts.read_text())["key"]
    compare(replace(request(suite, precision="fp16"), output=Path("other"), plans=Path("out/plans")), said)
    assert json.loads(facts.read_text())["key"] != key


def test_int8_measures_the_ranges_of_each_on_the_images(suite: Path, quick: type[FakeProcess]) -> None:
    said: list[str] = []
    images = RangesSource(images=suite / "data" / "images" / "train")
    compared = compare(request(suite, precision="int8", ranges=images), Feedback(said.append))
    assert [row["precision_asked"] for row in compared.facts["rows"]] == ["int8", "int8"]
    assert sum(line.startswith("Calibrating on") for line in said) == 2


def test_ctrl_c_behind_a_librarys_error_ends_the_run(suite: Path, quick: type[FakeProcess], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise ModelError("PyTorch could not export it.") from KeyboardInterrupt()

    monkeypatch.setattr(prepare_module, "_model", interrupted)
    with pytest.raises(ModelError):
        compare(request(suite), Feedback(silent))
    assert quick.opened == []


@pytest.mark.parametrize(
    ("more", "message", "code"),
    [
        (["--suite", "papers"], "There is no suite 'papers'.\nThere are: attention, paper, or a path", 2),
        ([], "Say what to compare: --suite NAME, or MODEL with --formats.", 2),
        (["--suite", "paper", "--formats"], "Say what to compare", 2),
        (["--suite", "paper", "model.onnx"], "A suite names its networks: leave MODEL out.", 2),
        (["--formats"], "--formats needs a MODEL.", 2),
        (["model.onnx", "--formats", "--size", "8x8", "--backend", "openvino"], "--size, --backend cannot be combined with --formats.", 2),
        (["--suite", "paper", "--dataset", "camvid"], "--dataset and --root belong together.", 2),
        (["--suite", "paper", "--ranges", "r.json"], "ranges of their own", 2),
        (["--suite", "paper", "--images", "."], "ranges of their own", 2),
        (["--suite", "paper", "--classes", "3"], "describe a model from elsewhere: add one (--add)", 2),
        (["--suite", "paper", "--weights", "slim.pth"], "Say whose they are: --weights NAME=FILE.", 2),
        (["--suite", "paper", "--weights", "STDC1-50=none.pth"], "Cannot read weights none.pth", 1),
        (["--suite", "paper", "--add", "none.onnx"], "Cannot read an ONNX model none.onnx", 1),
        (["--suite", "paper", "--backend", "tensorrt"], "compare runs every engine it builds, and there is no GPU here", 1),
        (["--suite", "paper", "--size", "9000x8"], "height and width must be from 1 to 8192", 2),
    ],
)
def test_what_is_wrong_is_told_before_the_work(call: Call, more: list[str], message: str, code: int) -> None:
    result = call("-o", "out", *more)
    assert (result.exit_code, "Traceback" in result.output) == (code, False), result.output
    assert message in result.output
    assert not Path("out").exists()


def test_a_size_that_none_of_them_takes_is_one_message(suite: Path, call: Call, tmp_path: Path) -> None:
    (suite / "one.toml").write_text(SUITE.replace("small.toml", "eighths.toml"))
    result = call("--suite", suite / "one.toml", "--size", "60x120", "--backend", "onnxruntime")
    assert result.exit_code == 1
    assert "Error: None of the 2 can be built for frames of 60x120 with onnxruntime.\nSmall: ddrnet takes heights" in result.output


def test_without_the_extra_nothing_begins(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "torch")
    result = call("--suite", "paper")
    assert (result.exit_code, Path("compared").exists()) == (1, False)
    assert "compare --suite needs the package torch, which is not installed.\nRun: pip install 'rtformer-deploy[export]'" in result.output


def test_files_of_others_are_left_alone(suite: Path, call: Call) -> None:
    Path("own.json").write_text("{}")
    result = call(*words(suite, "--json", "own.json"))
    assert "Cannot write own.json: the file there is not a report of compare." in result.output
    Path("plans").mkdir()
    Path("plans/Small.plan").write_text("mine")
    result = call(*words(suite, "--plans", "plans"))
    assert "Cannot write plans/Small.plan: the file there is not an engine plan with its sidecar." in result.output
    assert Path("plans/Small.plan").read_text() == "mine"
