"""Names on disk: long ones, and ones that are no text."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rtformer_deploy.errors import ImageError, OutputError
from rtformer_deploy.files import check_writable, printable, sha256, sha256_of, write_atomic


@pytest.mark.parametrize("name", ["n" * 255, "名" * 85, "x." + "y" * 253])
def test_the_longest_name_can_be_written(tmp_path: Path, name: str) -> None:
    check_writable(tmp_path / name)
    write_atomic(tmp_path / name, b"data")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("write", [check_writable, lambda path: write_atomic(path, b"data")])
def test_a_longer_one_is_refused_before_anything_is_written(tmp_path: Path, write: object) -> None:
    with pytest.raises(OutputError, match="File name too long") as caught:
        write(tmp_path / ("n" * 256))  # type: ignore[operator]
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENAMETOOLONG
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("write", [check_writable, lambda path: write_atomic(path, b"data")])
def test_a_dash_makes_no_file_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], None]) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="standard output"):
        write(Path("-"))
    assert list(tmp_path.iterdir()) == []


def test_any_name_can_be_printed() -> None:
    assert printable(Path(os.fsdecode(b"a\xff\xc3\xa9.png"))) == "a\\udcffé.png"


@pytest.mark.parametrize("data", [b"", b"abc" * 100_000])
def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    assert sha256_of(tmp_path / "x", ImageError, "an image") == sha256(data)


def test_a_file_that_is_not_to_be_read_has_no_hash(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"x" * 11)
    for name, why in (("pipe", "not a regular file"), ("large", "too large"), ("none", "No such file"), (".", "a folder")):
        with pytest.raises(ImageError, match=why):
            sha256_of(tmp_path / name, ImageError, "an image", 10)
