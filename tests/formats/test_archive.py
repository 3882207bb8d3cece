"""Zip archives that cannot unfold: stored members, together no larger than the file."""

from __future__ import annotations

import copy
import io
import zipfile

import pytest

from rtformer_deploy.formats.archive import open_stored


def packed(compression: int = zipfile.ZIP_STORED, copies: int = 0) -> bytes:
    """An archive of 100 kB, in which `copies` further entries of the directory lead to the same bytes."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", compression) as archive:
        archive.writestr("weights", bytes(100_000))
        for index in range(copies):
            entry = copy.copy(archive.filelist[0])
            entry.filename = f"weight{index}"
            archive.filelist.append(entry)
    return target.getvalue()


def test_stored_members_are_read() -> None:
    assert open_stored(packed()).read("weights") == bytes(100_000)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (packed(zipfile.ZIP_DEFLATED), "'weights' is compressed"),
        (packed(zipfile.ZIP_LZMA), "'weights' is compressed"),
        (packed(copies=9), "its members hold 1,000,000 bytes, the file 10.,...: they overlap"),
        (packed()[:-30], "not a zip file"),
        (b"", "not a zip file"),
        (b"PK\x01\x02" * 100_001, "more than 100,000 members"),
    ],
)
def test_what_unfolds_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(zipfile.BadZipFile, match=message):
        open_stored(data)


@pytest.mark.parametrize("position", range(22))
def test_damage_to_the_directorys_end_is_a_bad_zip_file(position: int) -> None:
    data = bytearray(packed())
    data[len(data) - 22 + position] ^= 0xFF
    try:
        open_stored(bytes(data))
    except zipfile.BadZipFile:
        return
