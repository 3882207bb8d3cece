"""Names in documents: each is one plain file name and never a path."""

from __future__ import annotations

import re

from ..types import FILE_NAME
from .documents import DocumentError

_NAME = re.compile(FILE_NAME)
_LONGEST = 100
#: File systems take 255; a suffix needs some.
_MOST_BYTES = 230


def is_name(text: str) -> bool:
    """Whether a text can be part of a file's name on every system."""
    return _NAME.match(text) is not None


def check_name(text: str, field: str) -> str:
    """The text, which a document has as its `field` and which begins a file's name. Raises DocumentError if that cannot be."""
    if not is_name(text) or len(text.encode()) > _MOST_BYTES:
        raise DocumentError(f"{field} is {text[:_LONGEST]!r}; expected a plain file name of at most {_LONGEST} characters")
    return text


def clean_name(text: str) -> str:
    """Any text, such as the name of a user's file, -> the name that is most like it: what cannot be in one becomes an underscore."""
    cleaned = "".join(each if is_name(f"_{each}") else "_" for each in text[:_LONGEST]) or "_"
    return cleaned if is_name(cleaned) else f"_{cleaned[1:]}"
