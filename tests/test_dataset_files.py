"""Which files are a dataset's frames: folders, links, suffixes, pairs in one folder, lists; and that its images are everybody's images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rtformer_deploy.datasets import Dataset, open_dataset
from rtformer_deploy.errors import DatasetError, ImageError
from rtformer_deploy.image.decode import load_image
from rtformer_deploy.image.png import save_png
from rtformer_deploy.image.reader import ImageReader

PAIR = 'images = "images/{split}/{name}.png"\nlabels = "labels/{split}/{name}.png"\n'
LIST = 'list = "{split}.txt"\n'


def put(root: Path, *names: str) -> None:
    """Files that are a picture and a label map at once: grey, 0."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 3)).save(root / name, "PNG")


def opened(root: Path, layout: str = PAIR, said: list[str] | None = None) -> Dataset:
    own = root.parent / "own.toml"
    own.write_text(f'ignore_index = 7\nclasses = ["no", "yes"]\npalette = [[0, 0, 0], [255, 0, 0]]\n[layout]\n{layout}')
    return open_dataset(str(own), root, "val", ImageReader(say=(said if said is not None else list[str]()).append))


def names(root: Path, layout: str = PAIR, said: list[str] | None = None) -> list[str]:
    return [sample.name for sample in opened(root, layout, said).samples]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A dataset's folder with one pair, a."""
    put(tmp_path / "data", "images/val/a.png", "labels/val/a.png")
    return tmp_path / "data"


def test_a_datasets_frames_are_what_load_image_gives_for_every_picture(shared: Path, tmp_path: Path) -> None:
    """One reader: orientation, CMYK, palettes, alpha, 16 bits, and the bad ones refused by both."""
    pictures = sorted(path for path in (shared / "media").rglob("*") if path.is_file() and path.suffix not in {".md", ".mp4"})
    assert len(pictures) > 30
    put(tmp_path, "label.png")
    read = refused = 0
    for picture in pictures:
        (tmp_path / "picture").unlink(missing_ok=True)
        (tmp_path / "picture").symlink_to(picture)
        (tmp_path / "val.txt").write_text("picture\tlabel.png\n")
        dataset = opened(tmp_path, LIST)
        try:
            wanted = load_image(picture)
        except ImageError:
            with pytest.raises(DatasetError, match="cannot be read as an image"):
                dataset.load(0)
            refused += 1
            continue
        Image.new("L", wanted.shape[1::-1]).save(tmp_path / "label.png")
        frame, _ = dataset.load(0)
        np.testing.assert_array_equal(frame, wanted)
        read += 1
    assert read > 25
    assert refused == 3


def test_sub_folders_are_part_of_the_name(root: Path) -> None:
    put(root, "images/val/seq/1/b.png", "labels/val/seq/1/b.png")
    assert names(root) == ["a", "seq/1/b"]


def test_linked_folders_are_read(root: Path, tmp_path: Path) -> None:
    for half in ("images", "labels"):
        put(tmp_path, f"elsewhere/{half}/b.png")
        (root / half / "val" / "seq").symlink_to(tmp_path / "elsewhere" / half)
    assert names(root) == ["a", "seq/b"]


def test_a_split_that_is_a_link(root: Path) -> None:
    for half in ("images", "labels"):
        (root / half / "val").rename(root / half / "real")
        (root / half / "val").symlink_to("real")
    assert names(root) == ["a"]


def test_links_that_lead_nowhere_are_told(root: Path) -> None:
    (root / "images" / "val" / "seq").symlink_to("gone")
    said: list[str] = []
    assert names(root, said=said) == ["a"]
    assert said == [f"Left out of {root / 'images/val'}: links that lead nowhere (1)."]


def test_hidden_files_are_no_frames(root: Path) -> None:
    for half in ("images", "labels"):
        put(root, f"{half}/val/._a.png", f"{half}/val/.ipynb_checkpoints/a-checkpoint.png")
    said: list[str] = []
    assert names(root, said=said) == ["a"]
    assert len(said) == 2
    assert all("hidden files (2)" in line for line in said)


def test_capitals_in_a_suffix_do_not_matter(root: Path) -> None:
    put(root, "images/val/b.PNG", "labels/val/b.png", "images/val/c.Png", "labels/val/c.PNG")
    assert names(root) == ["a", "b", "c"]
    put(root, "images/val/a.PNG")
    with pytest.raises(DatasetError, match=r"a\.PNG and .*a\.png|a\.png and .*a\.PNG"):
        names(root)


@pytest.mark.parametrize(
    ("layout", "files"),
    [
        ('images = "{split}/{name}.png"\nlabels = "{split}/{name}_mask.png"', ["val/a.png", "val/a_mask.png"]),
        ('images = "{split}/{name}_img.png"\nlabels = "{split}/{name}.png"', ["val/a_img.png", "val/a.png"]),
        ('images = "{split}/{name}.png"\nlabels = "{split}/masks/{name}.png"', ["val/a.png", "val/masks/a.png"]),
        ('images = "{split}/img_{name}.png"\nlabels = "{split}/gt_{name}.png"', ["val/img_a.png", "val/gt_a.png"]),
        ('images = "{split}/{name}/image.png"\nlabels = "{split}/{name}/label.png"', ["val/a/image.png", "val/a/label.png"]),
        ('images = "{name}.{split}.png"\nlabels = "{name}.{split}.label.png"', ["a.val.png", "a.val.label.png"]),
    ],
)
def test_image_and_label_may_lie_in_one_folder(tmp_path: Path, layout: str, files: list[str]) -> None:
    put(tmp_path / "data", *files)
    dataset = opened(tmp_path / "data", layout)
    assert [sample.name for sample in dataset.samples] == ["a"]
    assert [str(path.relative_to(tmp_path / "data")) for path in (dataset.samples[0].image, dataset.samples[0].label)] == files


def test_our_own_overlays_are_no_frames_and_our_own_labels_are_labels(tmp_path: Path) -> None:
    root = tmp_path / "data"
    put(root, "val/a.png")
    save_png(root / "val/a_labels.png", np.zeros((3, 4), np.uint8))
    save_png(root / "val/a_overlay.png", np.zeros((3, 4, 3), np.uint8))
    said: list[str] = []
    layout = 'images = "{split}/{name}.png"\nlabels = "{split}/{name}_labels.png"'
    assert names(root, layout, said) == ["a"]
    assert said == [f"Left out of {root / 'val'}: pictures that rtformer-deploy wrote (1)."]


LINES = "images/val/a.png{0}labels/val/a.png\nimages/val/b.png{0}labels/val/b.png\n"


@pytest.fixture
def listed(root: Path) -> Path:
    put(root, "images/val/b.png", "labels/val/b.png")
    return root


def write(root: Path, text: str, encoding: str = "utf-8") -> list[str]:
    (root / "val.txt").write_bytes(text.encode(encoding))
    return names(root, LIST)


@pytest.mark.parametrize("text", [LINES.format(" "), LINES.format("\t"), LINES.format("   "), LINES.format(" ").replace("\n", "\r\n"),
                                  "# frames\n\n" + LINES.format(" "), LINES.format(" ").replace("/", "\\")])  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_lists(listed: Path, text: str, encoding: str) -> None:
    assert write(listed, text, encoding) == ["a", "b"]


@pytest.mark.parametrize(
    ("encoding", "named"),
    [
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16"),
        ("utf-16-be", "UTF-16"),
        ("utf-32", "UTF-32"),
        ("gbk", "GBK"),
        ("shift-jis", "Shift-JIS"),
    ],
)
def test_lists_of_other_encodings_are_refused_by_name(listed: Path, encoding: str, named: str) -> None:
    with pytest.raises(DatasetError, match=rf"val\.txt is written in [\s\S]*{named}[\s\S]*iconv"):
        write(listed, "# 数字\n" + LINES.format(" "), encoding)


def test_a_tab_allows_spaces_in_names(root: Path) -> None:
    put(root, "images/val/a frame.png", "labels/val/a frame.png")
    assert write(root, "images/val/a frame.png\tlabels/val/a frame.png\n") == ["a frame"]
    with pytest.raises(DatasetError, match=r"line 1: .* is not an image and a label[\s\S]*needs a tab"):
        write(root, "images/val/a frame.png labels/val/a frame.png\n")


def test_a_comma_is_no_separator(root: Path) -> None:
    with pytest.raises(DatasetError, match="where the comma is"):
        write(root, "images/val/a.png,labels/val/a.png\n")


def test_a_leading_slash_is_the_root_unless_the_path_is_inside_it(root: Path) -> None:
    assert write(root, "/images/val/a.png /labels/val/a.png\n") == ["a"]
    assert write(root, f"{root}/images/val/a.png {root}/labels/val/a.png\n") == ["a"]
    with pytest.raises(DatasetError, match=rf"line 1: there is no {root}/elsewhere/a\.png"):
        write(root, "/elsewhere/a.png /labels/val/a.png\n")


def test_an_absolute_path_through_a_link_to_the_root(root: Path, tmp_path: Path) -> None:
    (tmp_path / "short").symlink_to(root)
    (root / "val.txt").write_text(f"{root}/images/val/a.png {tmp_path}/short/labels/val/a.png\n")
    assert names(tmp_path / "short", LIST) == ["a"]


def test_a_list_stays_inside_the_root(root: Path, tmp_path: Path) -> None:
    put(tmp_path, "other.png")
    with pytest.raises(DatasetError, match=r"line 1: .* leads out of the dataset's folder"):
        write(root, "../other.png labels/val/a.png\n")
    assert write(root, "images/val/../val/a.png labels/val/a.png\n") == ["a"]


def test_duplicates_are_told_and_taken_once(listed: Path) -> None:
    (listed / "val.txt").write_text(LINES.format(" ") + f"{listed}/images/val/a.png labels/val/a.png\n")
    said: list[str] = []
    assert names(listed, LIST, said) == ["a", "b"]
    assert said == [
        f"{listed / 'val.txt'} names some pairs more than once, which are taken once: {listed}/images/val/a.png (lines 1 and 3)."
    ]


def test_an_image_with_two_labels_is_refused(listed: Path) -> None:
    with pytest.raises(DatasetError, match=r"lines 1 and 3: images/val/a\.png has two labels"):
        write(listed, LINES.format(" ") + "images/val/a.png labels/val/b.png\n")
