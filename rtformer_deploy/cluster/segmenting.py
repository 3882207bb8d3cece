"""Rows with images -> the same rows with what came of them: one runner a worker, and the loop and the sinks that one machine has."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ClusterError, DeployError, ImageError, OutputError
from ..files import read_bytes, temporary_folder
from ..image.reader import ImageReader
from ..image.selection import Selection
from ..runtime.frame_runner import FrameRunner
from ..runtime.tiled import TiledRunner
from ..stream.answers import ImageConfidence, ImagePolygons
from ..stream.items import Counts, StreamFrame, Unread
from ..stream.loop import Loop, LoopOptions
from ..stream.record import record
from ..stream.sinks import Extra, Look, PictureSink, Written
from .manifest import load_manifest
from .rows import Row, failed
from .stores import Store, is_ours, open_store, shown_input

if TYPE_CHECKING:
    from ..stream.nvdec import Nvdec


@dataclass(frozen=True, slots=True)
class Style:
    """How results look, and which outputs an image has: the ends of their names ("": it is not written; there is always a label map).

    `tolerance` is that of polygons, `tiles` the overlap of tiles (None: no tiles), `batch` the images that are run at once.
    """

    labels: str
    overlay: str
    polygons: str = ""
    confidence: str = ""
    look: Look = field(default_factory=Look)
    tolerance: float = 0.0
    selection: Selection | None = None
    tiles: int | None = None
    batch: int = 1
    bit_depth: int | None = None

    @property
    def ends(self) -> tuple[str, ...]:
        """The ends of every output of an image."""
        return (self.labels, *filter(None, (self.overlay, self.polygons, self.confidence)))


class Segmenter:
    """Segments rows and writes their outputs. `open_runner` is called once.

    What ends the work on this node (a plan that cannot be opened, a full disk, a GPU that is gone) makes its rows "refused", with the
    reason. It is no exception: Ray would try the rows elsewhere, again and again.
    """

    def __init__(self, open_runner: Callable[[], FrameRunner], style: Style, output: str, node: str) -> None:
        self._style, self._node = style, node
        self._refusal: DeployError | None = None
        try:
            self._output: Store = open_store(output)
            self._sources = load_manifest(self._output).head.sources  # a node that does not see the output place has none
            self._runner = open_runner()
            self._through = self._runner if style.tiles is None else TiledRunner(self._runner, style.tiles)
        except DeployError as error:
            self._refusal = error

    def segment(self, rows: Sequence[Row]) -> list[Row]:
        """Segments what was read; gives every row back, once and without its image."""
        todo = [row for row in rows if row["state"] == "read"]
        if todo and self._refusal is None:
            try:
                self._segment(todo)
            except DeployError as error:
                self._refusal = error
        for row in rows:
            if row["state"] == "read":
                failed(row, self._refusal or ClusterError(f"{row['input']} was not segmented."), "refused")
            elif row["state"] == "failed" and row["old"] and self._refusal is None:
                self._remove_old(row)
            row["data"], row["node"] = b"", self._node
        return list(rows)

    def _segment(self, rows: Sequence[Row]) -> None:
        """Raises the DeployError after which nothing more can be done here."""
        reader = _NotingReader(self._style.bit_depth)
        with self._folder() as folder:
            loop = Loop([_Pictures(rows, [self._shown(row) for row in rows], reader)], self._through, self._options())
            sink = PictureSink(self._pairs(rows, folder), loop.spec, self._style.look, self._extras(rows, folder))
            with contextlib.closing(record(loop, {_Pictures.name: sink})) as recorded:
                for _, written in recorded:
                    if written is not None:
                        self._finish(rows[written.index], written, folder)
        for (key, line), row in zip(reader.notes.items(), rows, strict=False):
            row["note_key"], row["note"] = key, line

    def _finish(self, row: Row, written: Written, folder: Path) -> None:
        """Puts an image's outputs where they belong, if that is not the folder that they were written to."""
        if written.error is not None:
            failed(row, written.error)
            return
        if self._output.folder is None:
            for path in written.files:
                self._output.write(path.relative_to(folder).as_posix(), read_bytes(path, OutputError, "an output"))
                path.unlink()
        row["state"] = "done"

    def _options(self) -> LoopOptions:
        style = self._style
        batch = min(style.batch, self._runner.max_batch)
        return LoopOptions(batch, len(self._runner.sessions), confidence=bool(style.confidence), selection=style.selection)

    def _folder(self) -> contextlib.AbstractContextManager[Path]:
        """Where outputs are written: their own folder, or a temporary one, from which they are put into a store."""
        return contextlib.nullcontext(self._output.folder) if self._output.folder is not None else temporary_folder()

    def _pairs(self, rows: Sequence[Row], folder: Path) -> list[tuple[Path, Path | None]]:
        labels, overlay = self._style.labels, self._style.overlay
        return [(folder / (row["output"] + labels), folder / (row["output"] + overlay) if overlay else None) for row in rows]

    def _extras(self, rows: Sequence[Row], folder: Path) -> list[Extra]:
        style, extras = self._style, list[Extra]()
        if style.polygons:
            names = [str(row["frame"]) for row in rows]
            extras.append(ImagePolygons([folder / (row["output"] + style.polygons) for row in rows], names, style.tolerance))
        if style.confidence:
            extras.append(ImageConfidence([folder / (row["output"] + style.confidence) for row in rows]))
        return extras

    def _shown(self, row: Row) -> str:
        return shown_input(self._sources[row["source"]], row["input"])

    def _remove_old(self, row: Row) -> None:
        """Removes what an earlier run made of an image that fails now: it would pass for its result."""
        for end in self._style.ends:
            name = row["output"] + end
            if is_ours(self._output, name):
                self._output.remove(name)


class _NotingReader(ImageReader):
    """An ImageReader that keeps its remarks, for whoever started the run."""

    def __init__(self, bit_depth: int | None) -> None:
        super().__init__(bit_depth)
        self.notes: dict[str, str] = {}

    def say_once(self, key: str, line: str) -> None:
        self.notes.setdefault(key, line)


class _Pictures:
    """Implements `stream.items.Source` over rows that have images' bytes; `texts` is what messages call them."""

    name = ""

    def __init__(self, rows: Sequence[Row], texts: Sequence[str], reader: ImageReader) -> None:
        self._rows, self._texts, self._reader = rows, texts, reader
        self.text, self.live, self.counts = "images", False, Counts()
        self.total: int | None = len(rows)

    def items(self, stop: threading.Event, nvdec: Nvdec | None = None) -> Generator[StreamFrame | Unread]:
        for index, (row, text) in enumerate(zip(self._rows, self._texts, strict=True)):
            if stop.is_set():
                return
            try:
                yield StreamFrame(self._reader.decode(row["data"], text), row["output"], index)
            except ImageError as error:
                yield Unread(index, error)
