"""Datasets: the four layouts as their authors ship them, one's own, and folders that do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_training import write_dataset

from rtformer_deploy.datasets import open_dataset
from rtformer_deploy.errors import DatasetError, RecipeError
from rtformer_deploy.formats.recipe import load_labels


def put(root: Path, image: str, label: str, values: list[list[int]]) -> None:
    """One pair of files: a grey picture and a label map of these pixel values."""
    ids = np.array(values, np.uint8)
    for name, content in ((image, np.full((*ids.shape, 3), 100, np.uint8)), (label, ids)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(content).save(root / name)


LAYOUTS = {
    "camvid": ("val", "images/val/0016E5_07959.jpg", "labels/val/0016E5_07959.png", [[0, 10, 11]], [[0, 10, 11]]),
    "cityscapes": (
        "val",
        "leftImg8bit/val/lindau/lindau_000000_000019_leftImg8bit.png",
        "gtFine/val/lindau/lindau_000000_000019_gtFine_labelIds.png",
        [[7, 33, 0, 4]],
        [[0, 18, 255, 255]],
    ),
    "ade20k": (
        "val",
        "images/validation/ADE_val_00000001.jpg",
        "annotations/validation/ADE_val_00000001.png",
        [[0, 1, 150]],
        [[255, 0, 149]],
    ),
    "cocostuff": (
        "val",
        "images/val2017/000000000139.jpg",
        "annotations/val2017/000000000139.png",
        [[0, 181, 255, 11, 12]],
        [[0, 170, 255, 255, 11]],
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_as_their_authors_ship_them(name: str, tmp_path: Path) -> None:
    split, image, label, values, wanted = LAYOUTS[name]
    put(tmp_path, image, label, values)
    dataset = open_dataset(name, tmp_path, split)
    frame, ids = dataset.load(0)
    assert len(dataset) == 1
    assert frame.shape == (*np.shape(values), 3)
    assert ids.dtype == np.uint8
    assert ids.tolist() == wanted


@pytest.mark.parametrize(("name", "classes", "first", "last"), [
    ("camvid", 11, "Sky", "Bicyclist"), ("cityscapes", 19, "road", "bicycle"),
    ("ade20k", 150, "wall", "flag"), ("cocostuff", 171, "person", "wood"),
])  # fmt: skip
def test_class_names_and_palettes(name: str, classes: int, first: str, last: str) -> None:
    labels = load_labels(name)
    assert len(labels.names) == len(labels.palette) == len(set(labels.names)) == classes
    assert (labels.names[0], labels.names[-1]) == (first, last)


def test_cocostuff_ids_skip_what_coco_never_drew(tmp_path: Path) -> None:
    put(tmp_path, "images/val2017/1.jpg", "annotations/val2017/1.png", [[91, 181, 89, 90]])  # banner, wood, toothbrush, hair brush
    dataset = open_dataset("cocostuff", tmp_path, "val")
    names = [dataset.labels.names[value] if value != 255 else None for value in dataset.load(0)[1][0]]
    assert names == ["banner", "wood", "toothbrush", None]


def test_camvid_of_the_shared_folder(shared: Path) -> None:
    dataset = open_dataset("camvid", shared / "camvid", "val")
    frame, label = dataset.load(100)
    assert (len(dataset), len(open_dataset("camvid", shared / "camvid", "train"))) == (101, 367)
    assert frame.shape == (360, 480, 3)
    assert label.shape == (360, 480)


def test_names_may_hold_folders_and_come_in_order(tmp_path: Path) -> None:
    for name in ("b/x", "a/y", "a/x"):
        put(tmp_path, f"images/train/{name}.jpg", f"labels/train/{name}.png", [[0]])
    assert [sample.name for sample in open_dataset("camvid", tmp_path, "train").samples] == ["a/x", "a/y", "b/x"]


def test_a_folder_that_does_not_fit_says_what_was_looked_for_and_found(tmp_path: Path) -> None:
    put(tmp_path, "pictures/x.jpg", "truth/x.png", [[0]])
    with pytest.raises(DatasetError) as caught:
        open_dataset("cityscapes", tmp_path, "val")
    for part in ("leftImg8bit/val/*_leftImg8bit.png", "gtFine/val/*_gtFine_labelIds.png", "pictures", "truth"):
        assert part in str(caught.value)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="does not exist"):
        open_dataset("camvid", tmp_path / "nowhere", "val")


def test_a_split_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    put(tmp_path, "images/train/x.jpg", "labels/train/x.png", [[0]])
    with pytest.raises(DatasetError, match=r"'test' split.*images/train"):
        open_dataset("camvid", tmp_path, "test")


def test_a_pair_without_its_half(tmp_path: Path) -> None:
    for name in ("x", "y"):
        put(tmp_path, f"images/val/{name}.jpg", f"labels/val/{name}.png", [[0]])
    (tmp_path / "labels/val/x.png").unlink()
    with pytest.raises(DatasetError, match=r"images/val/x\.jpg has no label"):
        open_dataset("camvid", tmp_path, "val")


@pytest.mark.parametrize(("damage", "message"), [
    (b"no picture", "cannot be read as an image: it is not an image that can be read"),
    (b"", "cannot be read as an image: it is empty"),
    (b"GIF89a", "cannot be read as an image: it is not an image that can be read: it is GIF"),
    (None, "cannot be read as an image: Cannot read an image: No such file"),
])  # fmt: skip
def test_an_unreadable_image_is_named_once(tmp_path: Path, damage: bytes | None, message: str) -> None:
    put(tmp_path, "images/val/x.jpg", "labels/val/x.png", [[0]])
    dataset = open_dataset("camvid", tmp_path, "val")
    path = tmp_path / "images/val/x.jpg"
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
    with pytest.raises(DatasetError, match=message) as error:
        dataset.load(0)
    assert error.value.what.count("x.jpg") == 1


def test_a_truncated_label_is_named(tmp_path: Path) -> None:
    put(tmp_path, "images/val/x.jpg", "labels/val/x.png", np.random.default_rng(0).integers(0, 11, (64, 64)).tolist())
    path = tmp_path / "labels/val/x.png"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DatasetError, match=r"x\.png cannot be read as a label map: it is damaged or cut off") as error:
        open_dataset("camvid", tmp_path, "val").load(0)
    assert error.value.what.count("x.png") == 1


def test_sizes_that_differ_are_named(tmp_path: Path) -> None:
    put(tmp_path, "images/val/x.jpg", "labels/val/x.png", [[0, 0]])
    Image.new("L", (5, 7)).save(tmp_path / "labels/val/x.png")
    with pytest.raises(DatasetError, match=r"x\.jpg is 2x1, but its label .*x\.png is 5x7"):
        open_dataset("camvid", tmp_path, "val").load(0)


def test_a_value_that_is_no_class_is_named(tmp_path: Path) -> None:
    put(tmp_path, "images/val/x.jpg", "labels/val/x.png", [[0, 37, 200]])
    with pytest.raises(DatasetError, match=r"holds 37, 200, which is neither"):
        open_dataset("camvid", tmp_path, "val").load(0)


def test_a_coloured_label_needs_the_palettes_colours(tmp_path: Path) -> None:
    put(tmp_path, "images/val/x.jpg", "labels/val/x.png", [[0, 1]])
    colours = np.array([[[128, 128, 128], [128, 0, 0]]], np.uint8)
    Image.fromarray(colours).save(tmp_path / "labels/val/x.png")
    assert open_dataset("camvid", tmp_path, "val").load(0)[1].tolist() == [[0, 1]]
    Image.fromarray(colours + 1).save(tmp_path / "labels/val/x.png")
    with pytest.raises(DatasetError, match=r"x\.png holds the colour \(129, 129, 129\) \(and 1 more\), which none of the 11 classes has"):
        open_dataset("camvid", tmp_path, "val").load(0)


def test_own_data_by_list_files(tmp_path: Path) -> None:
    put(tmp_path, "a/x.jpg", "b/x.png", [[0, 1, 7]])
    (tmp_path / "val.txt").write_text("a/x.jpg b/x.png\n\n")
    own = tmp_path / "own.toml"
    own.write_text('ignore_index = 7\nclasses = ["no", "yes"]\npalette = [[0, 0, 0], [255, 0, 0]]\n[layout]\nlist = "{split}.txt"\n')
    assert open_dataset(str(own), tmp_path, "val").load(0)[1].tolist() == [[0, 1, 7]]
    (tmp_path / "val.txt").write_text("a/x.jpg\n")
    with pytest.raises(DatasetError, match=r"val\.txt, line 1"):
        open_dataset(str(own), tmp_path, "val")
    (tmp_path / "val.txt").write_text("a/x.jpg b/gone.png\n")
    with pytest.raises(DatasetError, match=r"line 1: there is no .*gone\.png"):
        open_dataset(str(own), tmp_path, "val")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("[layout]", "[elsewhere]"),
        ("{name}.jpg", "x.jpg"),
        ("ignore_index = 9", "ignore_index = 1"),
        ("[layout]", "[label_map]\n5 = 3\n[layout]"),
        ("[layout]", "[label_map]\n300 = 0\n[layout]"),
        ("[layout]", 'label_pixels = "colors"\n[layout]'),
        ("[layout]", 'label_pixels = "colours"\n[label_map]\n1 = 0\n[layout]'),
        ("[layout]", "ignored_colour = [0, 0, 256]\n[layout]"),
        ("labels/{split}/{name}.png", "images/{split}/{name}.jpg"),
        ("images/{split}", "../images/{split}"),
        ("images/{split}", "/images/{split}"),
    ],
)
def test_dataset_files_that_do_not_hold_together(tmp_path: Path, change: str, message: str) -> None:
    path = write_dataset(tmp_path / "data", frames=1)
    path.write_text(path.read_text().replace(change, message, 1))
    with pytest.raises(RecipeError, match=r"small\.toml"):
        open_dataset(str(path), path.parent, "val")


def test_a_dataset_that_nobody_knows() -> None:
    with pytest.raises(RecipeError, match="ade20k, camvid, cityscapes, cocostuff"):
        open_dataset("coconut", Path(), "val")


@pytest.mark.parametrize(
    ("change", "other", "message"),
    [
        ("images/{split}/{name}.jpg", ".{split}./{name}.jpg", "leads out of the dataset's folder"),  # with the split ""
        (
            "[layout]",
            '[layout]\nsplits = { val = ".." }',
            r"leads out of the dataset's folder: images/\.\./\{name\}\.jpg; paths there begin",
        ),
        ("images/{split}", "..\\\\\\\\images/{split}", "leads out of the dataset's folder"),
        ("images/{split}", "C:/images/{split}", "leads out of the dataset's folder"),
        ("[layout]", "[layout]\nsplits = 3", "layout.splits is 3; expected a table"),
        ("[layout]", "[layout]\nimage = 3", "it has keys that mean nothing: layout.image"),
        ("[layout]", "label_pixel = 3\n[layout]", "it has keys that mean nothing: label_pixel"),
        ('name = "small"', 'name = "../x"', r"name is '\.\./x'; expected a plain file name"),
        ('name = "small"', 'name = "a\\nb"', "expected a plain file name"),
        ('name = "small"', "version = 2", "it is of version 2, and this version of rtformer-deploy reads up to 1"),
        ('["sky", "road", "pole"]', "[]", "classes is a list of 0 values; expected at least 1 value"),
        ('["sky", "road", "pole"]', '["sky", "road"]', "it names 2 classes and 3 colours"),
        ('["sky", "road", "pole"]', '["sky", "road", ""]', r"classes\[2\] is ''; expected at least 1 character"),
        ('["sky", "road", "pole"]', '"sky"', "classes is 'sky'; expected a list"),
        ("[[90, 140, 220], ", "[[90, 140, 300], ", r"palette\[0\]\[2\] is 300; expected a whole number, at most 255"),
        ("[[90, 140, 220], ", "[[90, 140], ", r"palette\[0\] is a list of 2 values; expected 3 values"),
        ("ignore_index = 9", "ignore_index = 2020-01-01", "ignore_index is 2020-01-01; expected a whole number"),
        ("ignore_index = 9", "ignore_index = 1", "ignore_index is 1, which is one of the 3 classes"),
        ("[layout]", "[label_map]\n07 = 0\n[layout]", "label_map has a key that it cannot have"),
        ("[layout]", '[label_map]\n"²" = 0\n[layout]', "label_map has a key that it cannot have"),  # a digit that int() does not read
        ("[layout]", "[label_map]\n7 = true\n[layout]", "label_map.7 is true; expected a whole number"),
    ],
)
def test_dataset_files_say_which_key_is_wrong(tmp_path: Path, change: str, other: str, message: str) -> None:
    path = write_dataset(tmp_path / "data", frames=1)
    text = path.read_text()
    assert change in text
    path.write_text(text.replace(change, other, 1))
    with pytest.raises(RecipeError, match=rf"small\.toml: .*{message}"):
        open_dataset(str(path), path.parent, "" if ".{split}." in other else "val")


def test_a_split_on_the_command_line_stays_in_the_root_too(tmp_path: Path) -> None:
    path = write_dataset(tmp_path / "data", frames=1)
    with pytest.raises(RecipeError, match=r"leads out of the dataset's folder: images/\.\./val/\{name\}\.jpg"):
        open_dataset(str(path), path.parent, "../val")
