"""Images to ranges, and every way in which that can go wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import StoppedError, frames, stop_at, tiny_model

from rtformer_deploy.commands import calibrate as calibration
from rtformer_deploy.commands.calibrate import CalibrateRequest, calibrate_file
from rtformer_deploy.errors import CalibrationError
from rtformer_deploy.formats.model_file import save_model
from rtformer_deploy.formats.ranges import check_ranges, load_ranges
from rtformer_deploy.image.frames import save_png
from rtformer_deploy.types import Feedback, Ranges

PRINT = Feedback()


def calibrate(model: Path, images: Path, output: Path | None = None, feedback: Feedback = PRINT, **more: Any) -> Ranges:
    return calibrate_file(CalibrateRequest(model, images, output, threads=1, **more), feedback)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_model(tiny_model(), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for index, frame in enumerate(frames(*[(64, 96)] * 6)):
        save_png(tmp_path / "images" / f"{index}.png", frame)
    return tmp_path / "images"


def test_ranges_are_the_largest_values(model: Path, images: Path, tmp_path: Path) -> None:
    ranges = calibrate(model, images, tmp_path / "ranges.json", method="minmax")
    assert ranges == load_ranges(tmp_path / "ranges.json")
    assert ranges.images == 6
    assert {"input", "conv0", "relu0", "conv1", "relu1", "conv2"} <= set(ranges.amax)
    assert 0 < ranges.amax["relu0"] <= ranges.amax["conv0"]
    again = calibrate(model, images, method="minmax", limit=3, seed=5)
    assert again.amax == calibrate(model, images, method="minmax", limit=3, seed=5).amax
    assert all(again.amax[name] <= value for name, value in ranges.amax.items())


def test_an_interrupted_run_goes_on(model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_EVERY", 2)
    output, said = tmp_path / "ranges.json", list[str]()
    with pytest.raises(StoppedError):
        calibrate(model, images, output, feedback=Feedback(progress=stop_at(5)))
    assert not output.exists()
    ranges = calibrate(model, images, output, feedback=Feedback(said.append))
    assert said == ["Going on after 4 images."]
    assert ranges.amax == calibrate(model, images).amax
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_bad_images_are_named(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "some"
    with pytest.raises(CalibrationError, match="not a folder"):
        calibrate(model, folder)
    folder.mkdir()
    with pytest.raises(CalibrationError, match="no images"):
        calibrate(model, folder)
    save_png(folder / "grey.png", np.full((64, 96, 3), 90, np.uint8))
    with pytest.raises(CalibrationError, match="one colour"):
        calibrate(model, folder)
    (folder / "broken.png").write_bytes(b"no image")
    with pytest.raises(CalibrationError, match=r"broken\.png"):
        calibrate(model, folder)


def test_nan_is_named_with_its_tensor(images: Path, tmp_path: Path) -> None:
    model = tiny_model()
    weight = model.graph.initializers["weight1"]
    assert weight.const_value is not None
    array = weight.const_value.numpy().copy()
    array[0, 0, 0, 0] = np.nan
    import onnx_ir as ir

    weight.const_value = ir.tensor(array, name="weight1")
    save_model(model, tmp_path / "nan.onnx")
    with pytest.raises(CalibrationError, match="tensor conv1 holds NaN"):
        calibrate(tmp_path / "nan.onnx", images)


def test_ranges_of_other_weights_are_refused(model: Path, images: Path) -> None:
    ranges = calibrate(model, images)
    check_ranges(ranges, "tiny", ranges.weights_sha256)
    with pytest.raises(CalibrationError, match="other weights"):
        check_ranges(ranges, "tiny", "f" * 64)


@pytest.mark.parametrize("text", ["{", "[]", '{"amax": {"x": -1}, "method": "mse", "images": 1, "weights_sha256": "", "model": ""}'])
def test_a_damaged_ranges_file_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "ranges.json").write_text(text)
    with pytest.raises(CalibrationError, match=r"ranges\.json"):
        load_ranges(tmp_path / "ranges.json")
