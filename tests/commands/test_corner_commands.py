"""Commands on a model with `resize_corners` and `scale`: what they measure with, what they refuse, what they say before the work."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import tiny_model, tiny_spec
from small_training import write_dataset
from stdc_evaluation import FRAME, corner_spec
from tensorrt_plans import make_engine, make_info

from rtformer_deploy import pipeline
from rtformer_deploy.backends import check_engine, open_engine
from rtformer_deploy.backends.tensorrt import run as tensorrt_run
from rtformer_deploy.cli import main
from rtformer_deploy.commands.build_engine import BuildRequest, build_to_file
from rtformer_deploy.commands.calibrate import CalibrateRequest, calibrate_file
from rtformer_deploy.commands.inspect import describe
from rtformer_deploy.commands.tune import TuneRequest, tune
from rtformer_deploy.errors import EngineError
from rtformer_deploy.formats.model_file import save_model, stamp_spec
from rtformer_deploy.image.frames import preprocess, save_png
from rtformer_deploy.lanes.frame_tables import frame_tables
from rtformer_deploy.types import BuildOptions, Engine, Feedback

FAULT = "The GPU's kernels cannot resize from corner to corner yet, as tiny asks (resize_corners)."


@pytest.fixture
def model(tmp_path: Path) -> Path:
    made = tiny_model()
    stamp_spec(made, corner_spec())
    save_model(made, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_calibrate_shows_the_images_as_the_model_sees_them(model: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    frame = np.full((*FRAME, 3), 100, np.uint8)
    frame[0, 0] = 255  # half-pixel centres would mix it with its neighbours
    save_png(tmp_path / "images" / "a.png", frame, mark=False)
    ranges = calibrate_file(CalibrateRequest(model, tmp_path / "images", method="minmax", threads=1), Feedback(lambda line: None))
    assert (ranges.resize_corners, ranges.scale) == (True, 0.5)
    spec = corner_spec()
    ready = preprocess(frame, spec.size, spec.mean, spec.std, corners=True)
    assert ranges.amax["input"] == pytest.approx(float(ready.max()), rel=1e-3)
    assert preprocess(frame, spec.size, spec.mean, spec.std).max() < 0.5 * ready.max()


def test_bench_and_inspect(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    report = CliRunner().invoke(main, ["bench", str(model), "--seconds", "0.05", "--warmup", "0", "--threads", "1", "--json", str(path)])
    assert report.exit_code == 0, report.output
    frame = json.loads(path.read_text())["frame"]
    assert (frame["height"], frame["width"]) == FRAME
    spec = describe(model).to_json()["model"]
    assert (spec["resize_corners"], spec["scale"], spec["input_size"]) == (True, 0.5, "64x96")


def test_export_at_a_size_that_is_of_no_frame(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "data", frames=1)
    (tmp_path / "r.toml").write_text(
        f'name = "small"\ndataset = "{dataset}"\n[architecture]\nname = "rtformer"\nbase_channels = 8\nhead_channels = 16\n'
        "spp_channels = 16\ncross_size = 4\n[input]\nsize = [48, 96]\nscale = 0.75\n"
    )
    result = CliRunner().invoke(main, ["export", "--recipe", str(tmp_path / "r.toml"), "--random-weights", "--size", "64x128"])
    assert result.exit_code == 2, result.output
    assert "small: size 64x128 is scale 0.75 of no frame, which would have 85.3x170.7 pixels; 63x129 is that of 84x172." in result.stderr


# A GPU's lanes have no kernel for it.


def test_a_lane_is_refused_by_name_before_anything_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("the GPU was asked for")

    for name in ("refuse_what_cannot_open", "import_cuda", "choose_gpu", "open_plan"):
        monkeypatch.setattr(tensorrt_run, name, fail)
    engine = make_engine(spec=corner_spec())
    for opened in (
        lambda: check_engine(engine.info),
        lambda: open_engine(engine),
        lambda: tensorrt_run.open_lanes(engine, 0, 1, graphs=True),
    ):
        with pytest.raises(EngineError) as caught:
            opened()
        assert str(caught.value) == f"{FAULT}\nBuild it for a CPU: --backend openvino or onnxruntime."
    with pytest.raises(EngineError, match="from corner to corner"):
        frame_tables(corner_spec(), FRAME)
    scaled = dataclasses.replace(corner_spec(), resize_corners=False)
    assert frame_tables(scaled, FRAME).size == FRAME  # an engine has one size: scale alone is nothing new to a kernel
    with pytest.raises(AssertionError, match="asked for"):
        check_engine(make_info(spec=scaled))


def test_the_layers_of_its_plan_can_still_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[object] = []

    def stop(info: object) -> None:
        checked.append(info)
        raise KeyboardInterrupt

    monkeypatch.setattr(tensorrt_run, "refuse_what_cannot_open", stop)
    engine = make_engine(spec=corner_spec())
    with pytest.raises(KeyboardInterrupt):
        tensorrt_run.precision_after_open(engine, 0)
    assert checked == [engine.info]


def test_its_engine_is_built_and_said_not_to_open(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def built(_model: object, spec: Any, backend: str, options: object, *_: object, **__: object) -> Engine:
        return make_engine(spec=spec, backend=backend, inputs=(spec.input,), outputs=(spec.output,), batch=(1, 1, 1))

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("the engine was opened")

    monkeypatch.setattr(pipeline, "build", built)
    monkeypatch.setattr(pipeline, "compare", fail)
    monkeypatch.setattr(pipeline, "complete_precision", lambda engine, device: engine)
    monkeypatch.setattr(pipeline, "can_run_here", lambda engine: True)
    said: list[str] = []
    request = BuildRequest(model, tmp_path / "e.plan", backend="tensorrt-rtx", options=BuildOptions(threads=1))
    engine = build_to_file(request, Feedback(said.append))
    note = f"The engine can be built, but not opened: {FAULT} Build it for a CPU: --backend openvino or onnxruntime."
    assert [line for line in said if line == note] == [note]  # once
    assert said[-1] == "Not run here; its classes were not compared with ONNX Runtime."
    assert engine.info.notes == (note,)
    assert pipeline.opening_notes(corner_spec(), "openvino") == pipeline.opening_notes(tiny_spec(), "tensorrt") == ()


def test_tune_refuses_it_at_once(model: Path, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "data", frames=1)
    text = dataset.read_text().replace('["sky", "road", "pole"]', '["a", "b", "c", "d", "e"]')
    dataset.write_text(text.replace("[220, 200, 40]]", "[220, 200, 40], [1, 2, 3], [4, 5, 6]]"))
    request = TuneRequest(model, str(dataset), dataset.parent, tmp_path / "tuned", 0.5, backend="tensorrt-rtx")
    with pytest.raises(EngineError, match=r"^tune runs every engine it builds\. The engine can be built, but not opened"):
        tune(request, Feedback(lambda line: None))
    assert not (tmp_path / "tuned").exists()
