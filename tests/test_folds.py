"""Folds: which frames a stretch holds, which are kept apart from it, and datasets that have no frame numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rtformer_deploy.datasets import open_dataset
from rtformer_deploy.errors import DatasetError, UsageError
from rtformer_deploy.formats.folds import Fold, near, parse_split, stretch
from rtformer_deploy.training.splits import open_splits

#: Two drives, a frame a second; the first one pauses for a minute after its fourth frame.
DRIVES = [f"a_{30 * number:05}" for number in (0, 1, 2, 3, 64, 65, 66, 67)] + [f"b_f{30 * number:05}" for number in range(12)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Labelled frames of the two drives in train, and two more frames of drive a in val; returns the dataset file."""
    for split, names in (("train", DRIVES), ("val", ["a_02070", "a_02400"])):
        for half in ("images", "labels"):
            (tmp_path / half / split).mkdir(parents=True)
            for name in names:
                Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / half / split / f"{name}.png")
    path = tmp_path / "drives.toml"
    path.write_text(
        'classes = ["a", "b"]\npalette = [[0, 0, 0], [9, 9, 9]]\nignore_index = 255\nframe_rate = 30\n'
        '[layout]\nimages = "images/{split}/{name}.png"\nlabels = "labels/{split}/{name}.png"\n'
    )
    return path


def test_stretches_cover_every_drive_once_in_order() -> None:
    parts = [stretch(reversed(DRIVES), Fold(number, 4)) for number in (1, 2, 3, 4)]
    assert sorted(parts[0]) == ["a_00000", "a_00030", "b_f00000", "b_f00030", "b_f00060"]
    assert sorted(parts[3]) == ["a_01980", "a_02010", "b_f00270", "b_f00300", "b_f00330"]
    assert sorted(name for part in parts for name in part) == sorted(DRIVES)


def test_frames_are_near_by_their_numbers_not_by_their_places() -> None:
    assert near(DRIVES, {"a_00090"}, 60) == {"a_00030", "a_00060", "a_00090"}
    assert near(DRIVES, {"a_00090", "b_f00000"}, 30) == {"a_00060", "a_00090", "b_f00000", "b_f00030"}
    assert near(DRIVES, [], 1e9) == set()


def test_nothing_near_a_held_out_stretch_is_trained_on(data: Path) -> None:
    fit, checks = open_splits(str(data), data.parent, fold="2/4")
    assert [check.split for check in checks] == ["train:2/4"]
    assert sorted(checks[0].names) == ["a_00060", "a_00090", "b_f00090", "b_f00120", "b_f00150"]
    assert sorted(fit.names) == ["a_01920", "a_01950", "a_01980", "a_02010", "b_f00270", "b_f00300", "b_f00330"]
    assert fit.split == "train"
    assert open_dataset(str(data), data.parent, "train:2/4").names == checks[0].names


def test_another_split_is_trained_on_too_but_for_what_is_near(data: Path) -> None:
    fit, checks = open_splits(str(data), data.parent, also=("val",))
    assert (fit.split, len(fit), checks) == ("train+val", len(DRIVES) + 2, [])
    fit, checks = open_splits(str(data), data.parent, fold="4/4", also=("val",))
    assert [check.split for check in checks] == ["train:4/4"]
    assert "a_02400" in fit.names
    assert "a_02070" not in fit.names  # two seconds after the stretch
    assert len(fit.names & checks[0].names) == 0


def test_a_frame_of_two_splits_is_refused(data: Path) -> None:
    with pytest.raises(DatasetError, match="The frame a_00000 of 'train' is in another split too"):
        open_splits(str(data), data.parent, also=("train",))
    with pytest.raises(DatasetError, match=r"frames of 'val' would be trained on and scored too"):
        open_splits(str(data), data.parent, also=("val:1/2",))


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/1", "1", "1/4/4", "a/b", "1/04", "-1/4", ":1/4", "a:b:1/4", "a:4/3", ""])
def test_what_is_no_fold(text: str, data: Path) -> None:
    with pytest.raises(UsageError, match="is no fold"):
        Fold.parse(text)


def test_the_name_of_a_split() -> None:
    assert parse_split("train") == ("train", None)
    assert parse_split("train:3/10") == ("train", Fold(3, 10))
    assert parse_split("train:a_:3/3") == ("train", Fold(3, 3, "a_"))
    assert str(Fold.parse("a_:3/3")) == "a_:3/3"
    with pytest.raises(UsageError, match="'4/3' is no fold"):
        parse_split("train:4/3")


def test_a_stretch_of_one_drive(data: Path) -> None:
    assert stretch(DRIVES, Fold(4, 4, "b")) == {"b_f00270", "b_f00300", "b_f00330"}
    assert stretch(DRIVES, Fold(1, 4, "")) == stretch(DRIVES, Fold(1, 4))
    with pytest.raises(DatasetError, match="No drive has a name that begins with 'c', so stretch c:1/4 holds no frame"):
        stretch(DRIVES, Fold(1, 4, "c"))
    fit, (check,) = open_splits(str(data), data.parent, fold="a:4/4")
    assert sorted(check.names) == ["a_01980", "a_02010"]
    assert {name for name in fit.names if name.startswith("a")} == {"a_00000", "a_00030", "a_00060", "a_00090"}
    assert {name for name in fit.names if name.startswith("b")} == {name for name in DRIVES if name.startswith("b")}


def test_names_without_numbers_and_short_drives() -> None:
    with pytest.raises(DatasetError, match="'night' does not end in a frame number"):
        stretch(["day_1", "night"], Fold(1, 2))
    with pytest.raises(DatasetError, match="Stretch 1/3 holds no frame: the drives are too short"):
        stretch(["a_1", "b_1"], Fold(1, 3))


def test_a_dataset_without_a_frame_rate_is_told_what_to_write(data: Path) -> None:
    data.write_text(data.read_text().replace("frame_rate = 30\n", ""))
    with pytest.raises(DatasetError, match=r"how many frames a second has.*\n.*frame_rate = 30"):
        open_splits(str(data), data.parent, fold="1/4")


def test_a_fold_that_leaves_nothing_to_train_on(data: Path) -> None:
    data.write_text(data.read_text().replace("frame_rate = 30", "frame_rate = 1000"))
    with pytest.raises(DatasetError, match="Every frame of 'train' is within 3 seconds of 'train:1/2'"):
        open_splits(str(data), data.parent, fold="1/2")


def test_the_folds_of_camvid(shared: Path) -> None:
    """Each stretch has its part of the three drives, and the frames within three seconds are left out on both sides."""
    for number in (1, 2, 3, 4):
        fit, (check,) = open_splits("camvid", shared / "camvid", fold=f"{number}/4")
        assert {name.split("_")[0] for name in check.names} == {"0001TP", "0006R0", "0016E5"}
        assert 91 <= len(check) <= 93
        left_out = 367 - len(fit) - len(check)
        assert left_out in ((9, 10) if number in (1, 4) else range(15, 20)), (number, left_out)


def test_what_the_shipped_weights_never_saw_has_a_name(shared: Path) -> None:
    """`train --hold-out 0001TP` holds out what `evaluate --split train:0001TP:3/3` scores."""
    _, checks = open_splits("camvid", shared / "camvid", hold_out="0001TP", also=("val",))
    assert open_dataset("camvid", shared / "camvid", "train:0001TP:3/3").names == checks[-1].names
    assert len(checks[-1]) == 21
