"""Answers beside the pictures: class areas, polygons and confidence, in files that are written while the frames come.

An answer takes the results of one source, in order, and is not there under its name until the source has ended.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TextIO

from ..errors import OutputError
from ..files import make_folder, writing
from ..image.areas import area_header, area_rows
from ..image.coco import CocoFrames
from ..image.geojson import feature_collection
from ..image.png import save_png
from ..types import Frame, ModelSpec
from .items import StreamFrame, Unread
from .result import Result
from .sinks import JSON_START, MapFolder, Sink, Written


class Answer(Protocol):
    """Takes results; `finish` gives the file or folder its name, `abort` removes what is there. One of the two comes last."""

    target: Path

    def add(self, frame: str, result: Result) -> None:
        """Writes a result; `frame` is what the answer calls it. Raises OutputError."""
        ...

    def finish(self) -> None: ...

    def abort(self) -> None: ...


class _Text:
    """A text file that grows and gets its name in `finish`."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self._stack = contextlib.ExitStack()
        self._file: TextIO | None = None

    def write(self, text: str) -> None:
        try:
            if self._file is None:
                make_folder(self.target.parent)
                partial = self._stack.enter_context(writing(self.target))
                self._file = self._stack.enter_context(partial.open("w", encoding="utf-8", newline="\n"))
            self._file.write(text)
        except OSError as error:
            raise OutputError(f"Cannot write {self.target}: {error.strerror or error}.") from error

    def finish(self) -> None:
        self._stack.close()

    def abort(self) -> None:
        with contextlib.suppress(_AbortedError, OSError, OutputError), self._stack:
            raise _AbortedError


class _AbortedError(Exception):
    """Tells the partial file that it is not wanted."""


class _JsonList(_Text):
    """A JSON document with one long list, which is written item by item; `rest` gives what comes after it."""

    def __init__(self, target: Path, name: str, before: str = "") -> None:
        super().__init__(target)
        self._opening = f'{JSON_START}{before}"{name}": ['
        self._items = 0

    def extend(self, items: Iterable[Any]) -> None:
        for item in items:
            self.write(f"{',' if self._items else self._opening}\n{json.dumps(item, ensure_ascii=False)}")
            self._items += 1

    def rest(self) -> dict[str, Any]:
        return {}

    def finish(self) -> None:
        after = "".join(f', "{name}": {json.dumps(value, ensure_ascii=False)}' for name, value in self.rest().items())
        self.write(f"{'' if self._items else self._opening}\n]{after}}}\n")
        super().finish()


class AreaTable(_Text):
    """Class areas as CSV: a line for each frame and class."""

    def add(self, frame: str, result: Result) -> None:
        self.write(("" if self._file else area_header()) + area_rows(frame, result.time, result.areas()))


class AreaDocument(_JsonList):
    """Class areas as JSON: for each frame its name, its time and its areas."""

    def __init__(self, target: Path) -> None:
        super().__init__(target, "frames")

    def add(self, frame: str, result: Result) -> None:
        areas = [{"class_id": area.index, "class": area.name, "pixels": area.pixels, "share": area.share} for area in result.areas()]
        self.extend([{"frame": frame, "time": result.time, "areas": areas}])


class GeoJson(_JsonList):
    """Polygons as one GeoJSON FeatureCollection; each Feature says its frame and time."""

    def __init__(self, target: Path, tolerance: float = 0.0) -> None:
        super().__init__(target, "features", '"type": "FeatureCollection", ')
        self._tolerance = tolerance

    def add(self, frame: str, result: Result) -> None:
        where = {"frame": frame} if result.time is None else {"frame": frame, "time": result.time}
        self.extend(feature_collection(result.polygons(self._tolerance), result.spec.classes, where)["features"])


class Coco(_JsonList):
    """Label maps as one COCO document with run lengths."""

    def __init__(self, target: Path, spec: ModelSpec) -> None:
        super().__init__(target, "annotations")
        self._frames = CocoFrames(spec.classes)

    def add(self, frame: str, result: Result) -> None:
        self.extend(self._frames.add(frame, result.labels))

    def rest(self) -> dict[str, Any]:
        return {"categories": self._frames.categories, "images": self._frames.images}


class AnsweringSink:
    """Implements `sinks.Sink`: what another sink does, and answers of the same results.

    A video's frames are called SOURCE/INDEX, images by their `names`.
    """

    def __init__(self, sink: Sink, answers: Sequence[Answer], names: Sequence[str] | None = None) -> None:
        self._sink, self._answers, self._names = sink, tuple(answers), names
        self._frames = 0

    def draw(self, result: Result) -> Frame | None:
        return self._sink.draw(result)

    def write(self, item: StreamFrame, result: Result, drawing: Frame | None) -> Written | None:
        written = self._sink.write(item, result, drawing)
        if written is None or written.error is None:
            name = f"{result.name}/{result.index:06}" if self._names is None else self._names[item.index]
            for answer in self._answers:
                answer.add(name, result)
            self._frames += 1
        return written

    def unread(self, unread: Unread) -> Written | None:
        return self._sink.unread(unread)

    def end(self) -> Written | None:
        written = self._sink.end()
        for answer in self._answers:
            (answer.finish if self._frames else answer.abort)()
        if written is None or not self._frames:
            return written
        return replace(written, files=(*written.files, *(answer.target for answer in self._answers)))

    def abort(self) -> None:
        self._sink.abort()
        for answer in self._answers:
            answer.abort()


@dataclass(frozen=True, slots=True)
class ImagePolygons:
    """Implements `sinks.Extra`: a GeoJSON file for each image."""

    targets: Sequence[Path]
    names: Sequence[str]
    tolerance: float = 0.0

    def write(self, index: int, result: Result) -> None:
        document = GeoJson(self.targets[index], self.tolerance)
        try:
            document.add(self.names[index], result)
            document.finish()
        except BaseException:
            document.abort()
            raise


@dataclass(frozen=True, slots=True)
class ImageConfidence:
    """Implements `sinks.Extra`: a confidence map for each image, an 8-bit grey PNG."""

    targets: Sequence[Path]

    def write(self, index: int, result: Result) -> None:
        assert result.confidence is not None, "the loop was not asked for confidence"
        save_png(self.targets[index], result.confidence)


class ConfidenceFolder:
    """Confidence maps of a video, one 8-bit grey PNG a frame."""

    def __init__(self, target: Path) -> None:
        self.target, self._folder = target, MapFolder(target)

    def add(self, frame: str, result: Result) -> None:
        assert result.confidence is not None, "the loop was not asked for confidence"
        self._folder.add(result.index, result.confidence)

    def finish(self) -> None:
        self._folder.finish()

    def abort(self) -> None:
        self._folder.abort()
