"""Images to ranges, and every way in which that can go wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import StoppedError, frames, stop_at, tiny_model, tiny_spec

from rtformer_deploy.commands import calibrate as calibration
from rtformer_deploy.commands.calibrate import CalibrateRequest, calibrate_file
from rtformer_deploy.errors import CalibrationError, ImageError
from rtformer_deploy.formats.external_model import ExternalModel
from rtformer_deploy.formats.model_file import SPEC_KEY, read_spec, save_model, stamp_spec
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


def interrupt(model: Path, images: Path, output: Path, monkeypatch: pytest.MonkeyPatch, after: int = 5, **more: Any) -> None:
    """Runs a calibration that keeps its state at every second image and is stopped at the image `after`."""
    monkeypatch.setattr(calibration, "_EVERY", 2)
    with pytest.raises(StoppedError):
        calibrate(model, images, output, Feedback(progress=stop_at(after)), OddFiles(stop=False), **more)


def go_on(model: Path, images: Path, output: Path, **more: Any) -> tuple[Ranges, str, list[str]]:
    """Runs it to the end -> the ranges, what was said, and the names of the images that could not be read."""
    said, odd = list[str](), OddFiles(stop=False)
    ranges = calibrate(model, images, output, Feedback(said.append), odd, **more)
    assert not list(output.parent.glob(".*"))
    return ranges, "\n".join(said), [Path(error.what.split()[0]).name for error in odd.errors]


def test_a_run_that_goes_on_names_the_bad_ones_again(model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (images / "0_broken.png").write_bytes(b"no image")
    interrupt(model, images, tmp_path / "r.json", monkeypatch)
    ranges, said, bad = go_on(model, images, tmp_path / "r.json")
    assert (said, ranges.images, bad) == ("Going on after 3 images.", 6, ["0_broken.png"])


def test_a_run_goes_on_without_a_broken_image_that_is_gone(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = calibrate(model, images)
    (images / "0_broken.png").write_bytes(b"no image")
    (images / "5_broken.png").write_bytes(b"no image")
    interrupt(model, images, tmp_path / "r.json", monkeypatch)
    (images / "0_broken.png").unlink()
    assert go_on(model, images, tmp_path / "r.json") == (whole, "Going on after 3 images.", ["5_broken.png"])


def test_a_run_that_a_broken_image_stopped_goes_on_without_it(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "_EVERY", 2)
    whole = calibrate(model, images)
    (images / "4_broken.png").write_bytes(b"no image")
    with pytest.raises(CalibrationError, match=r"4_broken\.png"):
        calibrate(model, images, tmp_path / "r.json")
    (images / "4_broken.png").unlink()
    assert go_on(model, images, tmp_path / "r.json") == (whole, "Going on after 4 images.", [])


def test_images_that_come_or_go_uncounted_are_no_new_start(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (images / "0_broken.png").write_bytes(b"no image")
    interrupt(model, images, tmp_path / "r.json", monkeypatch)
    (images / "5.png").unlink()
    for name, frame in zip(("0_broken.png", "0_new.png"), frames((64, 96), (50, 70), seed=7), strict=True):
        save_png(images / name, frame, mark=False)  # the broken one was repaired
    ranges, said, bad = go_on(model, images, tmp_path / "r.json")
    assert (said, bad, ranges) == ("Going on after 3 images.", [], calibrate(model, images))
    assert ranges.images == 7


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda images: (images / "1.png").unlink(), "counted 1.png, which is not among the images now"),
        (lambda images: save_png(images / "1.png", frames((64, 96), seed=9)[0], mark=False), "counted 1.png, which has changed since"),
        (lambda images: (images / "1.png").write_bytes(b"no image"), "counted 1.png, which has changed since"),
    ],
)
def test_a_counted_image_that_is_gone_or_changed_is_a_new_start(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None], reason: str
) -> None:
    interrupt(model, images, tmp_path / "r.json", monkeypatch)
    change(images)
    ranges, said, _ = go_on(model, images, tmp_path / "r.json")
    assert said == f"{tmp_path / '.r.json.calibration.npz'} {reason}; beginning anew."
    assert ranges == calibrate(model, images, odd=OddFiles(stop=False))


def test_another_folder_is_another_calibration_unless_it_holds_the_same_images(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    for index, frame in enumerate(frames(*[(64, 96)] * 6, seed=3)):
        save_png(tmp_path / "other" / f"{index}.png", frame // 4, mark=False)
    interrupt(model, images, tmp_path / "r.json", monkeypatch)
    ranges, said, _ = go_on(model, tmp_path / "other", tmp_path / "r.json")
    assert "counted 0.png, which has changed since; beginning anew." in said
    assert ranges == calibrate(model, tmp_path / "other")
    interrupt(model, images, tmp_path / "r.json", monkeypatch)
    images.rename(tmp_path / "moved")
    assert go_on(model, tmp_path / "moved", tmp_path / "r.json")[1] == "Going on after 4 images."


@pytest.mark.parametrize(
    ("made", "stamped", "names"),
    [
        ({}, {"mean": (0.0, 0.0, 0.0)}, "model, mean differ"),
        ({}, {"std": (1.0, 1.0, 1.0)}, "model, std differ"),
        ({}, {"resize": "letterbox"}, "model, resize differ"),
        ({"size": (32, 48)}, {}, "model, size differ"),
        ({"seed": 1}, {}, "model differs"),
    ],
)
def test_another_model_or_preprocessing_is_another_calibration(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Any, stamped: Any, names: str
) -> None:
    interrupt(model, images, tmp_path / "r.json", monkeypatch)
    other = tiny_model(**made)
    stamp_spec(other, replace(read_spec(other) or tiny_spec(), **stamped))
    save_model(other, model)
    ranges, said, _ = go_on(model, images, tmp_path / "r.json")
    assert said == f"{tmp_path / '.r.json.calibration.npz'} belongs to another calibration: {names}; beginning anew."
    assert ranges == calibrate(model, images)


def test_a_model_from_elsewhere_is_told_apart_by_the_preprocessing(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tiny_model()
    del bare.metadata_props[SPEC_KEY]
    save_model(bare, model)
    first, second = (ExternalModel(mean=(0.5, 0.5, 0.5), std=(std, std, std)) for std in (1.0, 0.25))
    interrupt(model, images, tmp_path / "r.json", monkeypatch, external=first)
    ranges, said, _ = go_on(model, images, tmp_path / "r.json", external=second)
    assert "another calibration: std differs; beginning anew." in said
    assert (ranges, ranges.std) == (calibrate(model, images, external=second), (0.25, 0.25, 0.25))


def test_another_method_reads_the_same_histograms(model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(model, images, tmp_path / "r.json", monkeypatch, method="minmax")
    ranges, said, _ = go_on(model, images, tmp_path / "r.json", method="mse")
    assert (said, ranges) == ("Going on after 4 images.", calibrate(model, images, method="mse"))


@pytest.mark.parametrize("data", [b"", b"no archive", None, {"counts": np.zeros(3)}, {"record": np.frombuffer(b"[1]", np.uint8)}])
def test_a_checkpoint_that_cannot_be_read_is_a_new_start(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes | dict[str, Any] | None
) -> None:
    path = tmp_path / ".r.json.calibration.npz"
    interrupt(model, images, tmp_path / "r.json", monkeypatch)
    if isinstance(data, dict):
        np.savez(path, **data)
    else:
        path.write_bytes(path.read_bytes()[:-100] if data is None else data)
    ranges, said, _ = go_on(model, images, tmp_path / "r.json")
    assert said.startswith(f"{path} cannot be read (")
    assert said.endswith("; beginning anew.")
    assert ranges == calibrate(model, images)


def test_a_draw_changes_by_one_image_at_most(images: Path) -> None:
    def drawn(seed: int) -> set[str]:
        return {path.name for path in calibration.pick_images(images, 3, seed)}

    assert len({frozenset(drawn(seed)) for seed in range(9)}) > 2
    for name in sorted(path.name for path in images.iterdir()):
        before = drawn(0)
        data = (images / name).read_bytes()
        (images / name).unlink()
        assert len(before - drawn(0)) == (name in before)
        (images / name).write_bytes(data)


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
    assert "another calibration: bit depth differs; beginning anew." in said[0]


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
