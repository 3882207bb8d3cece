"""`segment`'s answers, as a person types them: areas, polygons, confidence, chosen classes and pixels, tiles; of images and of a clip."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from clips import ticks, write_clip
from helpers import tiny_model
from numpy.typing import NDArray
from PIL import Image

from rtformer_deploy.cli import main
from rtformer_deploy.formats.model_file import save_model
from rtformer_deploy.image.confidence import confidence_map
from rtformer_deploy.image.frames import overlay, save_png
from rtformer_deploy.image.polygons import polygons_of
from rtformer_deploy.opening import open_any

Call = Callable[..., Result]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs `segment` over two pictures in photos/, one of them in a sub-folder, or over what is named."""
    monkeypatch.chdir(tmp_path)
    save_model(tiny_model(), Path("model.onnx"))
    draw = np.random.default_rng(5)
    for index, name in enumerate(("a.png", "sub/b.png")):
        (Path("photos") / name).parent.mkdir(exist_ok=True)
        save_png(Path("photos") / name, draw.integers(0, 256, (70 + index, 100, 3), np.uint8), mark=False)
    return lambda *arguments: CliRunner().invoke(main, ["segment", "model.onnx", *map(str, arguments), "-o", "out"])


def there() -> set[str]:
    return {path.relative_to("out").as_posix() for path in Path("out").rglob("*") if path.is_file()}


def pixels(path: str) -> NDArray[np.uint8]:
    with Image.open(Path("out") / path) as image:
        return np.asarray(image)


def document(path: str) -> Any:
    return json.loads((Path("out") / path).read_text())


def test_images_give_areas_of_all_and_polygons_and_confidence_of_each(call: Call) -> None:
    result = call("photos", "--areas", "csv", "--areas", "json", "--polygons", "geojson", "--polygons", "coco", "--confidence")
    assert result.exit_code == 0, result.output
    assert "Wrote out/areas.csv and out/areas.json and out/coco.json." in result.stdout
    each = {f"{name}_{end}" for name in ("a", "sub/b") for end in ("labels.png", "overlay.png", "polygons.geojson", "confidence.png")}
    assert there() == each | {"areas.csv", "areas.json", "coco.json"}
    labels = pixels("sub/b_labels.png")
    rows = [row for row in csv.DictReader(Path("out/areas.csv").read_text().splitlines()) if row["frame"] == "sub/b.png"]
    assert [int(row["pixels"]) for row in rows] == [int((labels == index).sum()) for index in range(len(rows))]
    frames = document("areas.json")["frames"]
    assert [frame["frame"] for frame in frames] == ["a.png", "sub/b.png"]
    assert sum(area["pixels"] for area in frames[1]["areas"]) == labels.size
    features = document("sub/b_polygons.geojson")["features"]
    assert [feature["properties"]["class_id"] for feature in features] == [polygon.label for polygon in polygons_of(labels)]
    coco = document("coco.json")
    assert [image["file_name"] for image in coco["images"]] == ["a.png", "sub/b.png"]
    assert sum(annotation["area"] for annotation in coco["annotations"] if annotation["image_id"] == 2) == labels.size
    with open_any(Path("model.onnx")) as runner, Image.open("photos/a.png") as image:
        logits = runner.logits([np.asarray(image)])[0]
        sure = confidence_map(logits, (70, 100), runner.spec.size, runner.spec.resize)
    np.testing.assert_array_equal(pixels("a_confidence.png"), sure)


def test_a_clip_gives_answers_frame_by_frame(call: Call) -> None:
    pytest.importorskip("av")
    clip = write_clip(Path("clip.mp4"), ticks(3))
    result = call(clip, "--labels", "--areas", "csv", "--polygons", "geojson", "--polygons", "coco", "--confidence", "--tolerance", "1")
    assert result.exit_code == 0, result.output
    files = {"clip_overlay.mp4", "clip_areas.csv", "clip_polygons.geojson", "clip_coco.json"}
    assert there() == files | {f"clip_{kind}/{index:06}.png" for kind in ("labels", "confidence") for index in range(3)}
    rows = list(csv.DictReader(Path("out/clip_areas.csv").read_text().splitlines()))
    assert {(row["frame"], row["time"]) for row in rows} == {(f"clip/{index:06}", f"{0.04 * index:.6f}") for index in range(3)}
    labels = pixels("clip_labels/000001.png")
    features = [each for each in document("clip_polygons.geojson")["features"] if each["properties"]["frame"] == "clip/000001"]
    assert sum(each["properties"]["area"] for each in features) == pytest.approx(labels.size)
    assert {each["properties"]["time"] for each in features} == {0.04}
    assert len(document("clip_coco.json")["images"]) == 3


def test_pixels_that_are_not_asked_for_get_255_and_no_colour(call: Call) -> None:
    assert call("photos/a.png").exit_code == 0
    whole = pixels("a_labels.png")
    mask = np.zeros(whole.shape, np.uint8)
    mask[:, :50] = 255
    save_png(Path("mask.png"), mask, mark=False)
    with open_any(Path("model.onnx")) as runner:
        names, palette = runner.spec.classes, runner.spec.palette
    kept = int(np.bincount(whole.ravel()).argmax())
    assert call("photos/a.png", "--only", names[kept].upper(), "--roi", "mask.png").exit_code == 0
    wanted = np.where((whole == kept) & (mask > 0), whole, 255)
    np.testing.assert_array_equal(pixels("a_labels.png"), wanted)
    with Image.open("photos/a.png") as image:
        np.testing.assert_array_equal(pixels("a_overlay.png"), overlay(np.asarray(image), wanted, palette))


def test_uncertain_pixels_become_a_class_of_their_own(call: Call) -> None:
    result = call("photos/a.png", "--min-confidence", "0.5", "--confidence", "--areas", "json", "--palette", "--legend")
    assert result.exit_code == 0, result.output
    labels, sure = pixels("a_labels.png"), pixels("a_confidence.png")
    areas = document("areas.json")["frames"][0]["areas"]
    np.testing.assert_array_equal(labels == len(areas) - 1, sure < 127.5)
    assert areas[-1]["class"] == "unsure"
    assert areas[-1]["pixels"] == (sure < 127.5).sum() > 0
    with Image.open("out/a_labels.png") as image:
        assert image.mode == "P"


def test_images_of_one_name_have_one_each_in_documents(call: Call) -> None:
    """As output files have."""
    for folder in ("x", "y"):
        Path(folder).mkdir()
        save_png(Path(folder) / "a.png", np.zeros((9, 12, 3), np.uint8), mark=False)
    assert call("x/a.png", "y/a.png", "photos/sub/b.png", "--areas", "csv", "--polygons", "coco").exit_code == 0
    rows = csv.DictReader((Path("out") / "areas.csv").read_text().splitlines())
    assert list(dict.fromkeys(row["frame"] for row in rows)) == ["x_a.png", "y_a.png", "b.png"]
    assert [image["file_name"] for image in document("coco.json")["images"]] == ["x_a.png", "y_a.png", "b.png"]


def test_an_image_and_a_video_of_one_name(call: Call) -> None:
    """A phone's live photo is IMG.jpg and IMG.mov; one that is broken ended the whole run."""
    write_clip(Path("photos/a.mp4"), ticks(2))
    result = call("photos", "--polygons", "geojson")
    assert result.exit_code == 0, result.output
    assert {"a_overlay.png", "a_polygons.geojson", "a_mp4_overlay.mp4", "a_mp4_polygons.geojson"} < there()


def test_larger_pictures_are_cut_into_tiles(call: Call) -> None:
    save_png(Path("large.png"), np.random.default_rng(1).integers(0, 256, (200, 300, 3), np.uint8), mark=False)
    assert call("large.png", "--tiles", "8").exit_code == 0
    tiled = pixels("large_labels.png")
    assert call("large.png").exit_code == 0
    assert tiled.shape == (200, 300)
    assert (tiled != pixels("large_labels.png")).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("photos/a.png", "--only", "bus"), "There is no class 'bus'."),
        (("photos/a.png", "--roi", "missing.png"), "missing.png"),
        (("photos/a.png", "--roi", "photos/sub/b.png"), "The mask is 71x100 and the frame 70x100."),
        (("photos/a.png", "--tiles", "9999"), "cannot overlap by 9999 pixels"),
        (("photos/a.png", "--tiles", "4", "--confidence"), "Tiles have no logits of the whole frame."),
    ],
)
def test_what_cannot_be_is_one_message(call: Call, arguments: tuple[str, ...], message: str) -> None:
    result = call(*arguments)
    assert result.exit_code in (1, 2)
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert not [path for path in there() if "partial" in path]


def test_an_answer_replaces_its_own_kind_only(call: Call) -> None:
    for _ in range(2):
        assert call("photos", "--areas", "csv", "--polygons", "coco").exit_code == 0
    Path("out/coco.json").write_text('{"images": []}')
    refused = call("photos", "--polygons", "coco")
    assert refused.exit_code == 1
    assert "Cannot write out/coco.json: the file there is not a document of segment's answers." in refused.stderr
    assert Path("out/coco.json").read_text() == '{"images": []}'
    assert call("photos", "--polygons", "coco", "--overwrite").exit_code == 0


def test_an_image_that_fails_now_loses_its_earlier_answers(call: Call) -> None:
    assert call("photos", "--polygons", "geojson", "--confidence").exit_code == 0
    Path("photos/a.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    assert call("photos", "--polygons", "geojson", "--confidence").exit_code == 1
    assert not [path for path in there() if path.startswith("a_")]


def test_a_report_of_flicker_replaces_its_own_kind_only(call: Call) -> None:
    pytest.importorskip("av")
    clip = write_clip(Path("clip.mp4"), ticks(3))
    for _ in range(2):
        assert call(clip, "--flicker").exit_code == 0
    Path("out/clip_flicker.json").write_text('{"notes": 1}')
    refused = call(clip, "--flicker")
    assert refused.exit_code == 1
    assert "Cannot write out/clip_flicker.json" in refused.stderr
