"""Images to ranges, and every way in which that can go wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import StoppedError, frames, stop_at, tiny_model, tiny_spec

from rtformer_deploy.commands import calibrate as calibration
from rtformer_deploy.commands.calibrate import CalibrateRequest, calibrate_file
from rtformer_deploy.errors import CalibrationError, ImageError
from rtformer_deploy.formats.model_file import save_model
from rtformer_deploy.formats.ranges import check_ranges, load_ranges
from rtformer_deploy.image.frames import save_png
from rtformer_deploy.image.odd_files import OddFiles
from rtformer_deploy.image.reader import ImageReader
from rtformer_deploy.types import Feedback, Ranges

PRINT = Feedback()


def calibrate(
    model: Path, images: Path, output: Path | None = None, feedback: Feedback = PRINT, odd: OddFiles | None = None, **more: Any
) -> Ranges:
    return calibrate_file(CalibrateRequest(model, images, output, threads=1, **more), feedback, odd)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_model(tiny_model(), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for index, frame in enumerate(frames(*[(64, 96)] * 6)):
        save_png(tmp_path / "images" / f"{index}.png", frame, mark=False)
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
    save_png(folder / "grey.png", np.full((64, 96, 3), 90, np.uint8), mark=False)
    with pytest.raises(CalibrationError, match="one colour"):
        calibrate(model, folder)
    (folder / "broken.png").write_bytes(b"no image")
    with pytest.raises(CalibrationError, match=r"broken\.png"):
        calibrate(model, folder)


def test_the_others_ranges_are_measured_if_the_bad_ones_are_collected(model: Path, images: Path, tmp_path: Path) -> None:
    whole = calibrate(model, images)
    (images / "broken.png").write_bytes(b"no image")
    (images / "0_empty.jpg").write_bytes(b"")
    odd = OddFiles(stop=False)
    ranges = calibrate(model, images, tmp_path / "ranges.json", odd=odd)
    assert (ranges.amax, ranges.images) == (whole.amax, 6)
    assert load_ranges(tmp_path / "ranges.json") == ranges
    assert odd.total == 8
    with pytest.raises(ImageError, match=r"2 of 8 images could not be read:\n  .*0_empty\.jpg is empty.*\n  .*broken\.png is not an image"):
        odd.raise_any()


def test_a_run_that_goes_on_remembers_the_bad_ones(model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_EVERY", 2)
    (images / "0_broken.png").write_bytes(b"no image")
    with pytest.raises(StoppedError):
        calibrate(model, images, tmp_path / "r.json", Feedback(progress=stop_at(5)), OddFiles(stop=False))
    odd, said = OddFiles(stop=False), list[str]()
    ranges = calibrate(model, images, tmp_path / "r.json", Feedback(said.append), odd)
    assert said == ["Going on after 4 images."]
    assert ranges.images == 6
    assert [Path(error.what.split()[0]).name for error in odd.errors] == ["0_broken.png"]


def test_if_every_image_is_bad_there_are_no_ranges(model: Path, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.png").write_bytes(b"no image")
    with pytest.raises(CalibrationError, match=r"1 of 1 images could not be read:\n  .*x\.png"):
        calibrate(model, tmp_path / "bad", tmp_path / "r.json", odd=OddFiles(stop=False))
    assert not (tmp_path / "r.json").exists()


def test_images_are_those_of_the_one_walk(images: Path) -> None:
    """Sub-folders and links, no overlays of yesterday, nothing hidden, no .gif."""
    frame = np.zeros((8, 8, 3), np.uint8)
    save_png(images / "0_overlay.png", frame)
    save_png(images / "._0.png", frame, mark=False)
    (images / "x.gif").write_bytes(b"GIF89a")
    (images / "sub").mkdir()
    save_png(images / "sub" / "a.png", frame, mark=False)
    (images.parent / "linked").mkdir()
    save_png(images.parent / "linked" / "b.png", frame, mark=False)
    (images / "link").symlink_to(images.parent / "linked")
    said: list[str] = []
    found = calibration.pick_images(images, None, 0, said.append)
    assert [path.relative_to(images).as_posix() for path in found] == [*(f"{n}.png" for n in range(6)), "link/b.png", "sub/a.png"]
    [line] = said
    assert all(part in line for part in ("rtformer-deploy wrote (1)", "hidden files (1)", ".gif, which is not read (1)"))


def test_another_bit_depth_is_another_calibration(model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_EVERY", 2)
    with pytest.raises(StoppedError):
        calibrate(model, images, tmp_path / "r.json", Feedback(progress=stop_at(5)))
    said: list[str] = []
    calibrate(model, images, tmp_path / "r.json", Feedback(said.append), reader=ImageReader(12))
    assert "beginning anew" in said[0]


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
    check_ranges(ranges, tiny_spec(), ranges.weights_sha256)
    with pytest.raises(CalibrationError, match="other weights"):
        check_ranges(ranges, tiny_spec(), "f" * 64)


@pytest.mark.parametrize("text", ["{", "[]", '{"amax": {"x": -1}, "method": "mse", "images": 1, "weights_sha256": "", "model": ""}'])
def test_a_damaged_ranges_file_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "ranges.json").write_text(text)
    with pytest.raises(CalibrationError, match=r"ranges\.json"):
        load_ranges(tmp_path / "ranges.json")
