"""Both splits are read before the work: nothing to learn or to score is one message that says what the labels hold and what to write."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import StoppedError, stop
from odd_pngs import chunk as png_chunk
from odd_pngs import png_file
from PIL import Image
from small_training import write_dataset

from rtformer_deploy.datasets import Dataset, open_dataset
from rtformer_deploy.errors import DatasetError
from rtformer_deploy.evaluation.census import check_census, take_census
from rtformer_deploy.image.decode import decode_image, size_of


@pytest.fixture(scope="module")
def cases(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cases")
    subprocess.run([sys.executable, shared / "cases" / "data" / "d03_binary_255.py"], cwd=folder, check=True, capture_output=True)
    return folder / "d03"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data", frames=2)


def opened(path: Path, split: str = "train") -> Dataset:
    return open_dataset(str(path), path.parent, split)


def relabel(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    for label in path.parent.glob("labels/*/*.png"):
        Image.fromarray(change(np.asarray(Image.open(label)))).save(label)


def message(dataset: Dataset, one_class: bool = False) -> str:
    with pytest.raises(DatasetError) as error:
        check_census(dataset, take_census(dataset), "learn", one_class=one_class)
    assert not [line for line in error.value.lines if "\n" in line]  # it would be printed as \n
    return str(error.value)


def test_it_counts_what_is_there(data: Path) -> None:
    dataset = opened(data)
    census = take_census(dataset, threads=1)
    wanted = [[int((dataset.load(index)[1] == value).sum()) for value in range(3)] for index in range(2)]
    assert census.counts.tolist() == wanted
    assert census.ignored == 2 * 2 * 64
    assert census.missing(dataset.labels.names) == []
    check_census(dataset, census, "learn")


@pytest.mark.parametrize("one_class", [False, True])
def test_masks_of_0_and_255_with_255_ignored(cases: Path, one_class: bool) -> None:
    for split in ("train", "val"):
        text = message(open_dataset(str(cases / "bin.toml"), cases / "d", split), one_class)
        assert text == (
            f"There is nothing to learn in the '{split}' split of bin: all pixels that are not ignored are background.\n"
            "The labels hold the values 0, 255; 255 is the ignore_index. If they are background and road, write into the dataset file:\n"
            "    [label_map]\n    0 = 0    # background\n    255 = 1    # road"
        )


def test_what_the_message_says_to_write_helps(cases: Path, tmp_path: Path) -> None:
    text = message(open_dataset(str(cases / "bin.toml"), cases / "d", "train"))
    (tmp_path / "mended.toml").write_text((cases / "bin.toml").read_text() + text[text.index("    [label_map]") :])
    dataset = open_dataset(str(tmp_path / "mended.toml"), cases / "d", "train")
    census = take_census(dataset)
    check_census(dataset, census, "learn")
    assert census.counts.sum() == sum(dataset.load(index)[1].size for index in range(len(dataset)))


def test_a_label_map_that_fits_no_pixel(cases: Path) -> None:
    text = message(open_dataset(str(cases / "wrongmap.toml"), cases / "d", "val"), one_class=True)
    assert "no pixel has one of the classes background, road." in text
    assert "The labels hold the values 0, 255; [label_map] has 7, 8, and every other value is ignored." in text
    assert "write in place of the dataset file's [label_map]:\n    [label_map]\n    0 = 0    # background\n    255 = 1    # road" in text


def test_one_class_alone_and_empty_labels(data: Path) -> None:
    relabel(data, lambda label: np.full_like(label, 2))
    text = message(opened(data))
    assert "all pixels that are not ignored are pole.\nThe labels hold the values 2; the classes are 0, 1, 2." in text
    assert "[label_map] has lines VALUE = CLASS" in text
    check_census(opened(data), take_census(opened(data)), "score", one_class=True)
    relabel(data, lambda label: np.full_like(label, 9))
    assert "9 is the ignore_index" in message(opened(data), one_class=True)


def test_colours_that_are_all_ignored(data: Path) -> None:
    data.write_text('label_pixels = "colours"\n' + data.read_text())
    relabel(data, lambda label: np.zeros((*label.shape, 3), np.uint8))
    text = message(opened(data))
    assert "The labels hold the colours (0, 0, 0); the palette has (90, 140, 220), (90, 80, 80), (220, 200, 40)." in text


def test_what_is_wrong_with_a_pair_is_found_before_the_work(data: Path) -> None:
    image = data.parent / "images" / "train" / "day_0.jpg"
    Image.new("RGB", (20, 10)).save(image)
    with pytest.raises(DatasetError, match=r"day_0\.jpg is 20x10, but its label .* is 64x48"):
        take_census(opened(data))
    image.write_bytes(b"no picture")
    with pytest.raises(DatasetError, match=r"day_0\.jpg cannot be read as an image"):
        take_census(opened(data))
    image.unlink()
    image.with_name("day_0.png").unlink(missing_ok=True)
    with pytest.raises(DatasetError, match=r"day_0\.png has no image"):
        opened(data)


def test_a_value_that_is_no_class_is_named(data: Path) -> None:
    relabel(data, lambda label: np.where(label == 2, 200, label).astype(np.uint8))
    with pytest.raises(DatasetError, match="holds 200, which is neither"):
        take_census(opened(data))


def test_progress_is_told_and_may_stop(data: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    take_census(opened(data, "val"), progress=lambda *step: seen.append(step))
    assert seen == [("read val", 1, 2), ("read val", 2, 2)]
    with pytest.raises(StoppedError):
        take_census(opened(data), progress=stop)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_size_from_the_header_is_that_of_the_frame(tmp_path: Path, format_name: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (30, 20)).save(tmp_path / "x", format_name, exif=exif)
    data = (tmp_path / "x").read_bytes()
    assert size_of(data, "x") == decode_image(data).shape[:2] == ((20, 30) if orientation < 5 else (30, 20))


def test_a_png_may_say_its_orientation_behind_its_pixels(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "x.png", exif=exif)
    data = (tmp_path / "x.png").read_bytes()
    found = re.search(rb"....eXIf", data, re.DOTALL)
    assert found is not None
    length = int.from_bytes(found[0][:4], "big") + 12
    chunk, end = data[found.start() : found.start() + length], data.rindex(b"IEND") - 4
    late = data[: found.start()] + data[found.start() + length : end] + chunk + data[end:]
    assert size_of(late, "x") == decode_image(late).shape[:2] == (30, 20)
    undecoded = png_file((5, 7), 8, 0, b"").replace(png_chunk(b"IDAT", b""), b"")
    assert size_of(undecoded, "x") == (7, 5)
