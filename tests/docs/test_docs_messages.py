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
    missing = {message: [part for part in message.split("...") if part.strip(" ,") not in text] for message in messages}
    assert {message: parts for message, parts in missing.items() if parts} == {}
    assert "a message that nobody prints" not in text
