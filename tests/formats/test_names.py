"""Names in documents: what is one plain file name, and what a user's file is called in a document."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from odd_documents import bounded

from rtformer_deploy.formats.documents import DocumentError
from rtformer_deploy.formats.names import check_name, clean_name, is_name

PLAIN = ["rtformer-slim-camvid", "model.onnx", "My data (2)", "modèle", "街", "a" * 100, "-", "x..y"]
OTHER = [
    "",
    ".",
    "..",
    ".hidden",
    "../x",
    "a/b",
    "a\\b",
    "C:x",
    "a\nb",
    "a\x00",
    "a\x7f",
    "a\u202eb",
    "a\u2028b",
    "\ud800",
    " x",
    "a" * 101,
    "a?",
]


@pytest.mark.parametrize("name", PLAIN)
def test_plain_names(name: str) -> None:
    assert check_name(name, "name") == clean_name(name) == name


@pytest.mark.parametrize("name", OTHER)
def test_other_names(name: str) -> None:
    assert not is_name(name)
    with pytest.raises(DocumentError, match=r"name is .*; expected a plain file name"):
        check_name(name, "name")
    assert is_name(clean_name(name))


def test_a_name_leaves_room_for_a_suffix() -> None:
    assert is_name("街" * 100)
    with pytest.raises(DocumentError):
        check_name("街" * 100, "name")


@bounded(100)
@given(st.text(st.characters(), max_size=120))
def test_any_name_can_be_cleaned_and_is_a_file_in_its_folder(text: str) -> None:
    name = clean_name(text)
    assert is_name(name)
    assert clean_name(name) == name
    assert (Path("folder") / name).parent == Path("folder")
