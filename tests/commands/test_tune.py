"""tune on real engines of a small network: what it measures and writes, that it goes on, and every way in which it refuses."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from click.testing import Result
from helpers import StoppedError, hide
from small_network import Small, write_small

from rtformer_deploy import machine
from rtformer_deploy.commands.choices import RangesSource
from rtformer_deploy.commands.tune import TuneRequest, tune
from rtformer_deploy.errors import UsageError
from rtformer_deploy.files import sha256
from rtformer_deploy.formats.build_table import TUNED
from rtformer_deploy.formats.engine_file import load_engine
from rtformer_deploy.formats.model_file import load_model
from rtformer_deploy.formats.ranges import load_ranges
from rtformer_deploy.formats.recipe import load_recipe
from rtformer_deploy.image.odd_files import OddFiles
from rtformer_deploy.pictures import SVG_MARK
from rtformer_deploy.timing import bench as bench_module
from rtformer_deploy.tuning.measure import Error, Reference, Workshop
from rtformer_deploy.tuning.records import Latency
from rtformer_deploy.tuning.search import Mix
from rtformer_deploy.types import Feedback, Progress

BACKENDS = ("openvino", "onnxruntime")
Call = Callable[..., Result]


def arguments(small: Small, *more: Any, backend: str = "onnxruntime", drop: float = 100) -> tuple[Any, ...]:
    about = ("--dataset", small.dataset, "--root", small.root, "--images", small.images, "--backend", backend)
    return ("tune", "model.onnx", *about, "--max-drop", drop, "--seconds", 0.02, "--threads", 1, "--limit", 2, *more)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_mix_is_found_and_build_engine_builds_it(small: Small, call: Call, backend: str) -> None:
    result = call(*arguments(small, backend=backend))
    assert result.exit_code == 0, result.output
    assert "On a CPU FP16 is storage" in result.output
    told = result.stdout.split("Build it:")[0].replace(str(small.images), "images")
    assert max(len(line.rstrip()) for line in told.splitlines() if "storage" not in line) <= 100
    found = json.loads(Path("tuned/tune.json").read_text())
    assert found["baseline"]["name"] == "FP32"
    assert [block["name"] for block in found["blocks"]] == ["body.0", "body.1", "tail"]
    assert all(0 < block["error"] < 0.1 for block in found["blocks"])
    assert sum(block["work"] for block in found["blocks"]) < 1
    points = {point["name"]: point for point in found["points"]}
    assert {"FP32", "INT8"} <= set(points)
    for point in points.values():
        assert point["latency_ms"] > 0
        assert point["drop"] == pytest.approx(100 * (found["baseline"]["miou"] - point["miou"]), abs=1e-3)
    fastest = min(point["latency_to_fp32"] for point in points.values())
    assert found["chosen"]["latency_to_fp32"] <= 1.021 * fastest
    assert Path("tuned/tune.svg").read_text().startswith("<svg")
    assert load_recipe("tuned/recipe.toml").size == (48, 64)
    command = found["command"].split()[1:]
    assert found["command"] in result.stdout
    built = call(*command)
    assert built.exit_code == 0, built.output
    asked = load_engine(Path("engine.plan")).info.precision.asked
    assert asked == load_recipe("tuned/recipe.toml").build.mix.precision


def test_the_recipe_builds_the_very_engine_that_was_measured(small: Small, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound admits one mix alone: body.1 out of INT8."""
    plans: dict[str, str] = {}
    wanted: Mix = {"body.0": "int8", "body.1": "fp32", "tail": "int8", "rest": "fp32"}

    def miou(workshop: Workshop, key: str, mix: Mix, progress: object) -> float:
        workshop.engines[key] = workshop.engine(mix)
        plans[key] = sha256(workshop.engines[key].plan)
        assert workshop.engines[key].info.model_sha256 == sha256(small.model.read_bytes())
        return 0.7 if mix == wanted or set(mix.values()) == {"fp32"} else 0.1

    def latencies(workshop: Workshop, mixes: dict[str, Mix], seconds: float, tell: object) -> dict[str, Latency]:
        times = {key: 1.0 + 2 * sum(level == "fp32" for level in mix.values()) for key, mix in mixes.items()}
        return {key: Latency(time, time) for key, time in times.items()}

    def error(self: Any, engine: Any) -> Any:
        return next(errors)

    errors = iter([Error(0.001, 0.0), Error(0.9, 0.1), Error(0.002, 0.0)])
    monkeypatch.setattr(Workshop, "miou", miou)
    monkeypatch.setattr(Workshop, "latencies", latencies)
    monkeypatch.setattr(Reference, "error", error)
    result = call(*arguments(small, drop=0.5))
    assert result.exit_code == 0, result.output
    found = json.loads(Path("tuned/tune.json").read_text())
    assert found["chosen"]["levels"] == wanted
    text = Path("tuned/recipe.toml").read_text()
    assert f'weights_sha256 = "{load_ranges(Path("tuned/ranges.json")).weights_sha256}"' in text
    assert 'keep = [\n    # body.1: fp32\n    "body.1.left", "body.1.right",\n]' in text
    assert call("build-engine", "model.onnx", "--recipe", "tuned/recipe.toml", "--backend", "onnxruntime", "--threads", 1).exit_code == 0
    assert sha256(Path("engine.plan").read_bytes()) in plans.values()
    key = next(each["key"] for each in records() if each["kind"] == "point" and each["levels"] == wanted)
    assert sha256(Path("engine.plan").read_bytes()) == plans[key]
    assert found["model_sha256"] == load_engine(Path("engine.plan")).info.model_sha256 == sha256(small.model.read_bytes())


def records(folder: str = "tuned") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(folder, "tune.state.jsonl").read_text().splitlines()]


def test_a_stopped_run_goes_on_and_measures_nothing_twice(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    request = TuneRequest(
        small.model,
        str(small.dataset),
        small.root,
        Path("tuned"),
        100,
        limit=2,
        backend="onnxruntime",
        ranges=RangesSource(images=small.images),
        threads=1,
        seconds=0.02,
    )

    def interrupt(phase: str, done: int, total: int) -> None:
        if (phase, done) == ("sensitivity", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(request, Feedback(lambda text: None, interrupt))
    kept = records()
    assert [each["kind"] for each in kept] == ["run", "point", "error", "error"]
    assert not Path("tuned/tune.json").exists()
    built: list[str] = []
    real = Workshop.miou

    def noted(workshop: Workshop, key: str, mix: Mix, progress: Progress) -> float:
        built.append(key)
        return real(workshop, key, mix, progress)

    monkeypatch.setattr(Workshop, "miou", noted)
    said: list[str] = []
    resumed = replace(request, resume=True)
    tuned = tune(resumed, Feedback(said.append))
    assert "Going on after 3 measurements." in said
    assert records()[: len(kept)] == kept
    assert kept[1]["key"] not in built
    assert sum(each["kind"] == "error" for each in records()) == 3
    assert tuned.chosen is not None
    size = len(records())
    monkeypatch.setattr(bench_module, "bench", None)
    tune(resumed, Feedback(said.append))  # a finished run has nothing left to measure
    assert len(records()) == size


def test_without_the_extra_everything_but_the_picture_is_written(small: Small, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "matplotlib")
    Path("tuned").mkdir()
    Path("tuned/tune.svg").write_text(f"<svg><!-- {SVG_MARK} --></svg>")
    result = call(*arguments(small))
    assert result.exit_code == 0, result.output
    assert "tune.svg is not drawn: matplotlib is not installed. Run: pip install 'rtformer-deploy[report]'\n" in result.output
    assert "tuned: tune.json, recipe.toml, ranges.json\n" in result.output
    assert not Path("tuned/tune.svg").exists()


def test_a_gate_that_cannot_be_met_is_exit_code_3(small: Small, call: Call) -> None:
    (Path("tuned")).mkdir()
    Path("tuned/recipe.toml").write_text(f"# {TUNED}: an earlier bound")
    result = call(*arguments(small, drop=-100))
    assert result.exit_code == 3, result.output
    assert "No mix is within --max-drop -100" in result.output
    found = json.loads(Path("tuned/tune.json").read_text())
    assert (found["chosen"], found["command"]) == (None, None)
    assert not any(point["within"] for point in found["points"])
    assert Path("tuned/tune.svg").exists()
    assert not Path("tuned/recipe.toml").exists()
    again = call(*arguments(small, "--resume", drop=100))  # the measurements hold for another bound
    assert again.exit_code == 0, again.output
    assert "Going on after" in again.output


def test_runs_do_not_mix(small: Small, call: Call) -> None:
    assert call(*arguments(small)).exit_code == 0
    twice = call(*arguments(small))
    assert twice.exit_code == 2
    assert "holds a run already" in twice.output
    before = Path("tuned/tune.state.jsonl").read_bytes()
    other = call(*arguments(small, "--resume", "--limit", 3, backend="openvino"))
    assert other.exit_code == 2
    assert "another run: backend, limit differ" in other.output
    write_small(small.model.parent / "other", seed=1).model.replace(small.model)
    changed = call(*arguments(small, "--resume"))
    assert changed.exit_code == 1
    assert "other weights" in changed.output
    assert Path("tuned/tune.state.jsonl").read_bytes() == before


def test_a_run_does_not_go_on_on_a_cpu_with_other_instructions(small: Small, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a layer costs there is another time, and the two CPUs may have one name."""
    assert call(*arguments(small)).exit_code == 0
    monkeypatch.setattr(machine, "cpu_flags", lambda: frozenset({"sve"}))
    other = call(*arguments(small, "--resume"))
    assert other.exit_code == 2
    assert "another run: machine differ" in other.output


def started(small: Small) -> TuneRequest:
    """A run that was stopped when its journal was begun -> the request that goes on with it."""
    request = TuneRequest(
        small.model,
        str(small.dataset),
        small.root,
        Path("tuned"),
        1,
        backend="onnxruntime",
        ranges=RangesSource(images=small.images),
        threads=1,
    )
    with pytest.raises(StoppedError):
        tune(request, Feedback(lambda text: None, stop_scoring), OddFiles(stop=False))
    return replace(request, resume=True)


def stop_scoring(phase: str, done: int, total: int) -> None:
    if phase != "Calibrate":
        raise StoppedError(phase)


def test_measurements_belong_to_the_content_of_the_files(small: Small) -> None:
    request = started(small)
    before = Path("tuned/tune.state.jsonl").read_bytes()
    frame, label, seen = (sorted((small.root / name).iterdir())[1] for name in ("images/val", "labels/val", "images/train"))
    other = sorted(frame.parent.iterdir())[0].read_bytes()
    changes = [
        (frame, other, "frames and labels"),
        (label, sorted(label.parent.iterdir())[0].read_bytes(), "frames and labels"),
        (small.dataset, small.dataset.read_bytes() + b"[label_map]\n1 = 0\n0 = 1\n", "frames and labels"),
        (seen, other, "calibration images"),
        (seen, b"no image", "calibration images"),
        (seen, None, "calibration images"),
        (seen.with_name("another.png"), other, "calibration images"),
    ]
    for path, content, key in changes:
        kept = path.read_bytes() if path.is_file() else None
        _put(path, content)
        with pytest.raises(UsageError, match=rf"another run: {key} differ\."):
            tune(request, Feedback(lambda text: None, stop_scoring), OddFiles(stop=False))
        _put(path, kept)
    assert Path("tuned/tune.state.jsonl").read_bytes() == before
    with pytest.raises(StoppedError):
        tune(request, Feedback(lambda text: None, stop_scoring))


def _put(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


def test_a_broken_calibration_image_may_go_and_is_named_until_then(small: Small) -> None:
    (small.images / "broken.png").write_bytes(b"no image")
    request = started(small)
    for names in (["broken.png"], []):
        odd = OddFiles(stop=False)
        with pytest.raises(StoppedError):
            tune(request, Feedback(lambda text: None, stop_scoring), odd)
        assert [Path(error.what.split()[0]).name for error in odd.errors] == names
        (small.images / "broken.png").unlink(missing_ok=True)


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_an_engine_for_a_gpu_needs_one(small: Small, call: Call, monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    monkeypatch.setattr(machine, "gpus", lambda: ())
    result = call(*arguments(small, backend=backend))
    assert result.exit_code == 1
    assert "no GPU" in result.output
    assert not Path("tuned").exists()


def test_bad_calls(small: Small, call: Call) -> None:
    none = call("tune", "model.onnx", "--dataset", small.dataset, "--root", small.root, "--backend", "onnxruntime")
    assert none.exit_code == 1
    assert "INT8 needs ranges" in none.output
    both = call(*arguments(small, "--ranges", "r.json"))
    assert both.exit_code == 2
    assert "cannot be combined" in both.output
    classes = call("tune", "model.onnx", "--dataset", "camvid", "--root", small.root)
    assert classes.exit_code == 1
    assert "Error:" in classes.output
    assert call("tune", "nowhere.onnx", "--dataset", small.dataset, "--root", small.root).exit_code == 1


def test_a_dynamic_batch_is_tuned_and_built(small: Small, call: Call) -> None:
    from small_network import small_network

    from rtformer_deploy.formats.model_file import save_model

    save_model(small_network(small.dataset, "batch"), small.model)
    shape = load_model(small.model).graph.inputs[0].shape
    assert shape is not None
    assert not isinstance(shape[0], int)
    result = call(*arguments(small))
    assert result.exit_code == 0, result.output
    built = call("build-engine", "model.onnx", "--recipe", "tuned/recipe.toml", "--backend", "onnxruntime", "--max", 4)
    assert built.exit_code == 0, built.output
    assert load_engine(Path("engine.plan")).info.batch[2] == 4


def test_ctrl_c_leaves_the_state_and_resume_goes_on(small: Small, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    real = Reference.error

    def interrupted(self: Reference, engine: Any) -> Any:
        asked.append(engine)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return real(self, engine)

    monkeypatch.setattr(Reference, "error", interrupted)
    stopped = call(*arguments(small))
    assert stopped.exit_code == 130
    assert stopped.stderr == "Interrupted.\n"
    assert sorted(path.name for path in Path("tuned").iterdir()) == ["ranges.json", "tune.state.jsonl"]
    ranges = Path("tuned/ranges.json").stat().st_mtime_ns
    resumed = call(*arguments(small, "--resume"))
    assert resumed.exit_code == 0, resumed.output
    assert "Calibrating" not in resumed.output
    assert len(asked) == 2 + 2  # of three blocks one was measured before
    assert json.loads(Path("tuned/tune.json").read_text())["points"]
    assert Path("tuned/ranges.json").stat().st_mtime_ns >= ranges


def test_a_model_from_elsewhere_is_tuned_and_built(small: Small, call: Call) -> None:
    proto = onnx.load("model.onnx")
    del proto.metadata_props[:]
    onnx.save(proto, "model.onnx")
    about = ("--mean", "0,0,0", "--std", "1,1,1", "--classes", small.dataset)
    result = call(*arguments(small, *about))
    assert result.exit_code == 0, result.output
    command = json.loads(Path("tuned/tune.json").read_text())["command"]
    built = call(*shlex.split(command)[1:])
    assert built.exit_code == 0, built.output
