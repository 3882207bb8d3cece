"""Image files as a source: each one a frame, in the order that they are given in."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ImageError
from ..image.decode import NewFrame, new_frame
from ..image.reader import ImageReader
from .items import Counts, StreamFrame, Unread

if TYPE_CHECKING:
    from .nvdec import Nvdec


class ImageFiles:
    """Implements `items.Source` over images. One that cannot be read is an `Unread`, and the others go on.

    `names` are what the outputs are called, one for each path (None: the files' stems). `frame` gives the memory that they are decoded
    into; a loop sets it to its runner's.
    """

    def __init__(
        self, paths: Sequence[Path], names: Sequence[str] | None = None, reader: ImageReader | None = None, text: str = ""
    ) -> None:
        self.paths = tuple(paths)
        self.names = tuple(names if names is not None else (path.stem for path in paths))
        self.name, self.live = "images", False
        self.total: int | None = len(self.paths)
        self.text = text or (str(self.paths[0]) if len(self.paths) == 1 else "images")
        self.counts = Counts()
        self.frame: NewFrame = new_frame
        self._reader = reader or ImageReader()

    def items(self, stop: threading.Event, nvdec: Nvdec | None = None) -> Generator[StreamFrame | Unread]:
        for index, (path, name) in enumerate(zip(self.paths, self.names, strict=True)):
            if stop.is_set():
                return
            began = time.monotonic()
            try:
                item: StreamFrame | Unread = StreamFrame(self._reader.load(path, self.frame), name, index)
                self.counts.read += 1
            except ImageError as error:
                item = Unread(index, error)
                self.counts.broken += 1
            self.counts.busy += time.monotonic() - began
            yield item
