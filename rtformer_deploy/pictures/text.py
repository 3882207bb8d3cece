"""Text on its way into a picture or a page."""

from __future__ import annotations

import re

#: What XML 1.0 does not allow (https://www.w3.org/TR/xml/#charsets): control characters, halves of surrogate pairs, U+FFFE and U+FFFF.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")


def clean(text: str) -> str:
    """Any text -> one line that SVG and HTML can hold: white space becomes a space, a forbidden character U+FFFD."""
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", re.sub(r"\s+", " ", text))


def shorten(text: str, longest: int) -> str:
    """A text of at most `longest` characters: if it is longer, dots replace its middle."""
    if len(text) <= longest:
        return text
    head = (longest - 3) // 2
    return f"{text[:head]}...{text[len(text) - (longest - 3 - head) :]}"
