"""A folder's files: links without loops, hidden files, our own pictures, and one line that says what was left out."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rtformer_deploy.errors import ImageError
from rtformer_deploy.image import picture_formats
from rtformer_deploy.image.folders import images_in, walk
from rtformer_deploy.image.png import is_ours, save_png


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3), (9, 8, 7)).save(path)
    return path


def names(folder: Path) -> list[str]:
    return [path.as_posix() for path in walk(folder).files]


def test_sub_folders_are_included_and_the_order_is_that_of_the_names(tmp_path: Path) -> None:
    for name in ("b.png", "a/z.png", "a/b/y.png", "c/x.jpg"):
        put(tmp_path / name)
    assert names(tmp_path) == ["a/b/y.png", "a/z.png", "b.png", "c/x.jpg"]
    assert [path.relative_to(tmp_path).as_posix() for path in images_in(tmp_path)] == names(tmp_path)


def test_linked_folders_and_files_are_followed(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere/one.png")
    put(tmp_path / "lone.png")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/seq").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/file.png").symlink_to(tmp_path / "lone.png")
    assert names(tmp_path / "in") == ["file.png", "seq/one.png"]


def test_links_that_lead_back_end(tmp_path: Path) -> None:
    put(tmp_path / "in/a/x.png")
    put(tmp_path / "other/y.png")
    (tmp_path / "in/a/up").symlink_to("..")
    (tmp_path / "in/a/top").symlink_to(tmp_path)
    (tmp_path / "in/itself").symlink_to("itself")
    (tmp_path / "in/out").symlink_to(tmp_path / "other")
    (tmp_path / "other/back").symlink_to(tmp_path / "in")
    found = walk(tmp_path / "in")
    assert [path.as_posix() for path in found.files] == ["a/x.png", "out/y.png"]
    assert found.left_out == {
        "links that lead back to a folder above": 2,
        "links to folders that were read already": 1,
        "links that lead nowhere": 1,
    }


def test_two_folders_that_link_to_each_other(tmp_path: Path) -> None:
    for one, other in (("a", "b"), ("b", "a")):
        put(tmp_path / one / "x.png")
        (tmp_path / one / "other").symlink_to(tmp_path / other)
    assert names(tmp_path) == ["a/x.png", "b/x.png"]


def test_a_file_that_two_ways_lead_to_comes_once_under_its_real_name(tmp_path: Path) -> None:
    put(tmp_path / "z/x.png")
    (tmp_path / "a").symlink_to("z")
    assert names(tmp_path) == ["z/x.png"]


def test_hidden_files_are_left_out(tmp_path: Path) -> None:
    for name in ("x.png", "._x.png", ".ipynb_checkpoints/x-checkpoint.png", "__MACOSX/x.png", "@eaDir/x.jpg"):
        put(tmp_path / name)
    (tmp_path / ".DS_Store").write_bytes(b"")  # says nothing of interest
    (tmp_path / ".git").mkdir()
    found = walk(tmp_path)
    assert [path.as_posix() for path in found.files] == ["x.png"]
    assert found.left_out == {"hidden files": 4}


def test_a_hidden_folder_that_is_named_is_read(tmp_path: Path) -> None:
    put(tmp_path / ".cache/x.png")
    assert names(tmp_path / ".cache") == ["x.png"]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    put(tmp_path / "x.png")
    os.mkfifo(tmp_path / "pipe.png")
    found = walk(tmp_path)
    assert [path.as_posix() for path in found.files] == ["x.png"]
    assert found.left_out == {"not regular files": 1}


def test_a_link_that_leads_nowhere_is_named_by_who_reads_it(tmp_path: Path) -> None:
    (tmp_path / "x.png").symlink_to("gone.png")
    (tmp_path / "seq").symlink_to("gone")
    found = walk(tmp_path)
    assert [path.as_posix() for path in found.files] == ["x.png"]
    assert found.left_out == {"links that lead nowhere": 1}


def test_our_own_pictures_are_left_out(tmp_path: Path) -> None:
    frame = np.zeros((3, 4, 3), np.uint8)
    save_png(tmp_path / "x_overlay.png", frame)
    save_png(tmp_path / "x_labels.png", frame[..., 0])
    save_png(tmp_path / "frame.png", frame, mark=False)
    put(tmp_path / "x.png")
    said: list[str] = []
    assert [path.name for path in images_in(tmp_path, said.append)] == ["frame.png", "x.png"]
    assert said == [f"Left out of {tmp_path}: pictures that rtformer-deploy wrote (2)."]
    assert [is_ours(tmp_path / name) for name in ("x_overlay.png", "x_labels.png", "frame.png", "gone.png")] == [True, True, False, False]


def test_one_line_says_what_was_left_out_and_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_formats, "_decoder_is_here", lambda name: name != "HEIF")
    for name in ("a.heic", "b.HEIC", "c.gif", "d.txt", "e"):
        (tmp_path / name).write_bytes(b"x")
    put(tmp_path / "._a.png")
    put(tmp_path / "f.JPEG")
    said: list[str] = []
    assert [path.name for path in images_in(tmp_path, said.append)] == ["f.JPEG"]
    [line] = said
    for part in (
        ".heic, which needs pip install 'rtformer-deploy[heif]' (2)",
        ".gif, which is not read (1)",
        ".txt, which is not read (1)",
        "files without a suffix (1)",
        "hidden files (1)",
    ):
        assert part in line
    assert "\n" not in line


def test_a_folder_without_images_says_what_it_holds_instead(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"holds no image.\nImages are files that end in"):
        images_in(tmp_path)
    (tmp_path / "x.gif").write_bytes(b"GIF89a")
    with pytest.raises(ImageError, match=r"holds no image.\nLeft out of .*: \.gif, which is not read \(1\)"):
        images_in(tmp_path)


def test_a_folder_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="Cannot read the folder"):
        images_in(tmp_path / "gone")
