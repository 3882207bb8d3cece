"""The project's Markdown as tests read it: pages, headings with their anchors, links, and code blocks with what is said above them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
#: Everything that a reader of the repository may open.
PAGES = sorted(path for pattern in ("*.md", "docs/*.md", "deploy/*.md", "models/*.md") for path in ROOT.glob(pattern))
#: The pages whose code blocks have to run or to say why not.
SHOWN = [path for path in PAGES if path == ROOT / "README.md" or path.parent == ROOT / "docs"]

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"<!-- not run: ((?:(?!-->).)+) -->\n\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """A code block: where it stands, its language ("" for commands), its text, and why it is not run (None: it is)."""

    page: Path
    line: int
    language: str
    text: str
    why_not: str | None

    def __str__(self) -> str:
        return f"{name(self.page)}:{self.line}"


def name(page: Path) -> str:
    """A page's path in the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    """A page's code blocks, in their order."""
    text = page.read_text()
    found = []
    for fence in _FENCE.finditer(text):
        mark = _MARK.search(text, 0, fence.start())
        line = text.count("\n", 0, fence.start()) + 1
        found.append(Block(page, line, fence[2], fence[3], mark and mark[1]))
    return found


def prose(page: Path) -> str:
    """A page without its code blocks and comments."""
    return re.sub(r"<!--.*?-->", "", _FENCE.sub("", page.read_text()), flags=re.DOTALL)


def lines(block: Block) -> list[list[str]]:
    """A block's shell lines as words: remarks and what lies behind > and | are left out, continued lines are one."""
    found = []
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        end = next((place for place, word in enumerate(words) if word in (">", "|", "&&", "&", "2>")), len(words))
        if words:
            found.append(words[:end])
    return found


def spans(page: Path) -> list[str]:
    """A page's inline code."""
    return [found[1] for found in re.finditer(r"`([^`\n]+)`", prose(page))]


def headings(page: Path) -> list[str]:
    """The texts of a page's headings."""
    return re.findall(r"^#{1,6} (.+?) *$", prose(page), re.MULTILINE)


def anchors(page: Path) -> list[str]:
    """What a link into a page may name, as GitHub makes it of a heading; a second one of the same text ends in -1."""
    found: list[str] = []
    for heading in headings(page):
        plain = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        repeated = sum(each == slug or re.fullmatch(rf"{re.escape(slug)}-\d+", each) is not None for each in found)
        found.append(slug if not repeated else f"{slug}-{repeated}")
    return found


def links(page: Path) -> Iterator[str]:
    """Where a page's links and pictures lead, without titles."""
    for found in re.finditer(r"\]\(([^)\s]+)(?: \"[^\"]*\")?\)", prose(page)):
        yield found[1]
    for found in re.finditer(r"(?:src|href|srcset)=\"([^\"]+)\"", prose(page)):
        yield found[1]


def results(name: str) -> Any:
    """The figures that benchmarks/results/NAME.json holds."""
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
