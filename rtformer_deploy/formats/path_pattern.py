"""A path with {name} in it, as a dataset file writes it, and the names of the files that fit it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class PathPattern:
    """The folder in which names begin, and the parts of a file's path before and after the name."""

    folder: str
    before: str
    after: str

    @classmethod
    def parse(cls, text: str) -> PathPattern:
        """ "images/val/{name}_left.png" -> the pattern. {name} must occur once."""
        before, after = text.split("{name}")
        folder, _, start = before.rpartition("/")
        return cls(folder, start, after)

    @property
    def length(self) -> int:
        """How many characters of a path it fixes. If a file fits two patterns, the longer one is more specific."""
        return len(self.folder) + len(self.before) + len(self.after)

    def name_of(self, path: Path) -> str | None:
        """A path in `folder` -> the name in it, which may hold folders; None if it does not fit. The suffix may be in capitals."""
        text = path.as_posix()
        cut = len(text) - len(self.after)
        if cut < 1 or _plain(text[cut:]) != _plain(self.after):
            return None
        folders, slash, name = text[:cut].rpartition("/")
        return folders + slash + name.removeprefix(self.before) if name.startswith(self.before) else None


def _plain(end: str) -> str:
    """The end of a path with its suffix in small letters."""
    stem, dot, suffix = end.rpartition(".")
    return stem + dot + suffix.lower() if dot else end
