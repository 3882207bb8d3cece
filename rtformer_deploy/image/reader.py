"""How one command reads its images: the bit depth, and where remarks for the user go."""

from __future__ import annotations

import threading
from pathlib import Path

from ..errors import ImageError
from ..files import IMAGE_BYTES, read_bytes, sha256
from ..types import Frame, Say
from .decode import NewFrame, decode_with_note, new_frame, size_of


def silent(line: str) -> None:
    """A Say that tells nobody."""


class ImageReader:
    """Image files -> frames, for one command. `bit_depth` as in `load_image`; `say` gets each kind of remark once. Threads may share it."""

    def __init__(self, bit_depth: int | None = None, say: Say = silent) -> None:
        self.bit_depth = bit_depth
        self.say = say
        self._said: set[str] = set()
        self._lock = threading.Lock()

    def load(self, path: Path, frame: NewFrame = new_frame) -> Frame:
        """An image file -> its upright frame, in the memory that `frame` gives. Raises ImageError as `load_image`."""
        return self.decode(read_bytes(path, ImageError, "an image"), str(path), frame)

    def load_with_hash(self, path: Path) -> tuple[Frame, str]:
        """An image file -> its upright frame and the SHA-256 of the file, which is read once. Raises ImageError as `load_image`."""
        data = read_bytes(path, ImageError, "an image", IMAGE_BYTES)
        return self.decode(data, str(path)), sha256(data)

    def decode(self, data: bytes, name: str, frame: NewFrame = new_frame) -> Frame:
        """An image's bytes -> its upright frame; `name` is what messages call it. Raises ImageError as `load_image`."""
        decoded, note = decode_with_note(data, name, self.bit_depth, frame=frame)
        if note is not None:
            self.say_once(note.key, f"{name} {note.text} Others like it are read the same way.")
        return decoded

    def size(self, path: Path) -> tuple[int, int]:
        """An image file -> (H, W) of its upright frame; its pixels are not decoded. Raises ImageError."""
        return size_of(read_bytes(path, ImageError, "an image"), str(path))

    def say_once(self, key: str, line: str) -> None:
        """Says a line once for each key."""
        with self._lock:
            first = key not in self._said
            self._said.add(key)
        if first:
            self.say(line)
