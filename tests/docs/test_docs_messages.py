"""The messages that docs/trouble.md explains are the tool's: each is in the sources, but for what stands in for names and numbers."""

from __future__ import annotations

import re

from docs_pages import ROOT

PAGE = ROOT / "docs" / "trouble.md"


def sources() -> str:
    """The package's sources; texts over several lines, and the parts of f-strings that are computed, are closed up."""
    text = " ".join(path.read_text() for path in (ROOT / "rtformer_deploy").rglob("*.py"))
    text = re.sub(r'"\s*\n\s*f?"', "", text)
    return re.sub(r"\{[^{}\n]*\}", "...", text)


def test_every_message_is_the_tools() -> None:
    messages = re.findall(r"^\| `(.+?)` \|", PAGE.read_text(), re.MULTILINE)
    assert len(messages) > 20
    text = sources()
    assert {message: parts for message in messages if (parts := missing(message, text))} == {}
    assert missing("a message that nobody prints", text) == ["a message that nobody prints"]


def missing(message: str, text: str) -> list[str]:
    """The parts of a message, between what stands in for names, that the sources do not have."""
    return [part for part in message.split("...") if part.strip(" ,") not in text]
