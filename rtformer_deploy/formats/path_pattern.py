"""A path with {name} in it, as a dataset file writes it, and the names of the files that fit it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class PathPattern:
    """The folder in which names begin, and what stands in a file's path there before and after the name."""

    folder: str
    before: str
    after: str

    @classmethod
    def parse(cls, text: str) -> PathPattern:
        """ "images/val/{name}_left.png" -> the pattern; {name} stands in it once."""
        before, after = text.split("{name}")
        folder, _, start = before.rpartition("/")
        return cls(folder, start, after)

    @property
    def length(self) -> int:
        """How much of a path it fixes: of two patterns that a file fits, the longer says more about it."""
        return len(self.folder) + len(self.before) + len(self.after)

    def name_of(self, path: Path) -> str | None:
        """A path in `folder` -> the name in it, which may hold folders; None if it does not fit. Capitals in the suffix do not matter."""
        text = path.as_posix()
        kept = len(text) - len(self.after)
        if kept < 1 or _plain(text[kept:]) != _plain(self.after):
            return None
        folders, slash, name = text[:kept].rpartition("/")
        return folders + slash + name.removeprefix(self.before) if name.startswith(self.before) else None


def _plain(end: str) -> str:
    """The end of a path with its suffix in small letters."""
    stem, dot, suffix = end.rpartition(".")
    return stem + dot + suffix.lower() if dot else end
