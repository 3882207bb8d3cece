"""What a user may name, and what it is taken for."""

from __future__ import annotations

from pathlib import Path

import pytest
from clips import picture, ticks, write_clip

from rtformer_deploy.errors import UsageError
from rtformer_deploy.image.frames import save_png
from rtformer_deploy.stream.inputs import Inputs, sort_inputs

pytest.importorskip("av")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png", "sub/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save_png(tmp_path / name, picture(0), mark=False)
    write_clip(tmp_path / "sub" / "clip.mp4", ticks(2))
    return tmp_path


def names(inputs: Inputs) -> dict[str, list[str]]:
    found = {
        "images": [str(path) for path in inputs.images],
        "videos": [f"{path} in {below}" for path, below in inputs.videos],
        "cameras": [str(number) for number in inputs.cameras],
        "addresses": inputs.addresses,
    }
    return {kind: values for kind, values in found.items() if values}


def test_every_kind_is_known(place: Path) -> None:
    found = sort_inputs(["a.png", Path("sub/clip.mp4"), 1, "rtsp://cam/live", "/dev/video3", "sub/CLIP.MP4", "x.unknown"])
    assert names(found) == {
        "images": ["a.png", "x.unknown"],
        "videos": ["sub/clip.mp4 in .", "sub/CLIP.MP4 in ."],
        "cameras": ["1", "3"],
        "addresses": ["rtsp://cam/live"],
    }
    assert found.streams == 3


def test_a_folder_gives_its_images_and_its_videos(place: Path) -> None:
    assert names(sort_inputs([Path(".")])) == {"images": ["."], "videos": ["sub/clip.mp4 in sub"]}
    (place / "sub/c.png").unlink()
    assert names(sort_inputs(["sub"])) == {"videos": ["sub/clip.mp4 in ."]}


def test_a_pattern_that_no_file_is_called_stands_for_what_fits(place: Path) -> None:
    assert names(sort_inputs(["*.png"])) == {"images": ["a.png", "b.png"]}
    assert names(sort_inputs(["**/*.mp4"])) == {"videos": ["sub/clip.mp4 in ."]}
    (place / "[1].png").write_bytes(b"")
    assert names(sort_inputs(["[1].png"])) == {"images": ["[1].png"]}
    with pytest.raises(UsageError, match=r"No file fits the pattern \*\.jpg"):
        sort_inputs(["*.jpg"])


def test_lists(place: Path) -> None:
    (place / "sub" / "list.txt").write_text("\ufeff# pictures\n\nc.png\nclip.mp4\n../*.png\nhttp://host/a.mp4\n")
    found = sort_inputs(["sub/list.txt"])
    assert names(found) == {
        "images": ["sub/c.png", "sub/../a.png", "sub/../b.png"],
        "videos": ["sub/clip.mp4 in ."],
        "addresses": ["http://host/a.mp4"],
    }
    (place / "all.streams").write_text("rtsp://one/live\n# off\n/dev/video1\n2\n")
    assert names(sort_inputs(["all.streams"])) == {"cameras": ["1", "2"], "addresses": ["rtsp://one/live"]}
    (place / "bad.streams").write_text("rtsp://one/live\nclip.mp4\n")
    with pytest.raises(UsageError, match=r"bad.streams, line 2: 'clip.mp4' is neither an address nor a camera's number"):
        sort_inputs(["bad.streams"])
    (place / "loop.txt").write_text("loop.txt\n")
    assert names(sort_inputs(["loop.txt"])) == {"images": ["loop.txt"]}, "then it fails as an image"
