"""Text on its way into a picture or a page."""

from __future__ import annotations

import re

#: What XML 1.0 does not allow (https://www.w3.org/TR/xml/#charsets): control characters, halves of surrogate pairs, U+FFFE and U+FFFF.
_FORBIDDEN = "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff"
#: Marks and overrides of the writing direction, which would reorder the text around a name.
_DIRECTIONS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"
_REPLACED = re.compile(f"[{_FORBIDDEN}{_DIRECTIONS}]")


def clean(text: str) -> str:
    """Any text -> one line that SVG and HTML can hold: white space becomes a space; U+FFFD replaces the rest."""
    return _REPLACED.sub("\N{REPLACEMENT CHARACTER}", re.sub(r"\s+", " ", text))


def shorten_middle(text: str, longest: int) -> str:
    """A text of at most `longest` characters: if it is longer, dots replace its middle."""
    if len(text) <= longest:
        return text
    head = (longest - 3) // 2
    return f"{text[:head]}...{text[len(text) - (longest - 3 - head) :]}"
