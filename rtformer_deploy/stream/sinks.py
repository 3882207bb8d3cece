"""Where results go: pictures for images, an MP4 and label maps for a video. What is not finished has no name yet."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import DeployError, OutputError
from ..files import holds, make_folder, partial_folder, remove
from ..image.frames import save_png
from ..image.png import SOFTWARE, is_ours
from ..types import Frame, LabelMap, ModelSpec
from .items import StreamFrame, Unread
from .result import Result

if TYPE_CHECKING:
    from .mp4 import Mp4Writer

#: How every JSON document of answers begins, so that an earlier one is known as ours.
JSON_START = f'{{"info": {{"description": "{SOFTWARE}"}}, '

#: Why one file cannot be written while its neighbours can: its name is too long or not allowed, or a folder already has that name.
_ITS_OWN = frozenset({errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.EISDIR, errno.ENOTDIR, errno.EEXIST})


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """What a sink made: of one image, or of one source at its end. `shares` is the share of pixels of each class, (classes,).

    `index` is the image's place among the source's, `frames` how many were written; `error` says why something is missing. `notes` are
    sentences for a person.
    """

    index: int = 0
    frames: int = 0
    size: tuple[int, int] | None = None
    shares: NDArray[np.float64] | None = None
    files: tuple[Path, ...] = ()
    error: DeployError | None = None
    notes: tuple[str, ...] = ()


class Sink(Protocol):
    """Takes one source's results. `draw` and the others are each called in one thread, in order; either `end` or `abort` comes last."""

    def draw(self, result: Result) -> Frame | None:
        """What `write` gets as `drawing`; None if there is no overlay."""
        ...

    def write(self, item: StreamFrame, result: Result, drawing: Frame | None) -> Written | None:
        """Writes a result. Raises OutputError if nothing more can be written."""
        ...

    def unread(self, unread: Unread) -> Written | None: ...

    def end(self) -> Written | None:
        """The source has ended: finishes what was written. Raises OutputError."""
        ...

    def abort(self) -> None:
        """The run has failed: removes what is not finished."""
        ...


class Extra(Protocol):
    """One more file for each image, beside its label map and its overlay. `write` raises OutputError."""

    @property
    def targets(self) -> Sequence[Path]: ...

    def write(self, index: int, result: Result) -> None: ...


@dataclass(frozen=True, slots=True)
class Look:
    """How results are shown: the colours' weight in the overlay, its legend, and label maps in the classes' colours."""

    alpha: float = 0.5
    legend: bool = False
    palette: bool = False

    def draw(self, result: Result) -> Frame:
        return result.overlay(self.alpha, legend=self.legend)

    def palette_of(self, spec: ModelSpec) -> Sequence[Sequence[int]] | None:
        """What label maps are coloured with; None: they are grey."""
        return spec.palette if self.palette else None


class PictureSink:
    """Images: the label map and the overlay, as PNGs, and `extras`.

    `targets` are both paths, one pair for each image of the source. All overlays are None if none are written.
    """

    def __init__(self, targets: Sequence[tuple[Path, Path | None]], spec: ModelSpec, look: Look, extras: Sequence[Extra] = ()) -> None:
        self._targets, self._spec, self._look, self._extras = targets, spec, look, extras

    def draw(self, result: Result) -> Frame | None:
        return None if self._targets[result.index][1] is None else self._look.draw(result)

    def write(self, item: StreamFrame, result: Result, drawing: Frame | None) -> Written:
        labels, picture = self._targets[item.index]
        try:
            make_folder(labels.parent)
            save_png(labels, result.labels, palette=self._look.palette_of(self._spec))
            if picture is not None and drawing is not None:
                save_png(picture, drawing)
            for extra in self._extras:
                extra.write(item.index, result)
        except OutputError as error:
            if not (isinstance(error.__cause__, OSError) and error.__cause__.errno in _ITS_OWN):
                raise
            return self._failed(item.index, error)
        height, width = result.labels.shape
        files = self._files(item.index)
        return Written(item.index, 1, (height, width), class_shares(result.labels, len(self._spec.classes)), files)

    def unread(self, unread: Unread) -> Written:
        return self._failed(unread.index, unread.error)

    def end(self) -> None:
        return None

    def abort(self) -> None:
        return None

    def _failed(self, index: int, error: DeployError) -> Written:
        """Removes the files that an earlier run made of an image that fails now: they would pass for its result."""
        for path in self._files(index):
            if is_ours(path) or holds(path, JSON_START.encode(), b""):
                remove(path)
        return Written(index, error=error)

    def _files(self, index: int) -> tuple[Path, ...]:
        labels, picture = self._targets[index]
        return (labels, *([] if picture is None else [picture]), *(extra.targets[index] for extra in self._extras))


class VideoSink:
    """A video or a live source: the overlay as an MP4, unless `target` is None, and a label map for each frame, if `labels` is a folder.

    `sound` is the video whose sound is copied. A frame of another size begins a file of its own, TARGET_2.mp4. If the run fails, `keep`
    leaves what was written so far, as of a camera's recording, which cannot be made again.
    """

    def __init__(
        self, target: Path | None, spec: ModelSpec, look: Look, *, labels: Path | None = None, sound: Path | None = None, keep: bool = False
    ) -> None:
        self._target, self._spec, self._look, self._sound, self._keep = target, spec, look, sound, keep
        self._folder = None if labels is None else MapFolder(labels, look.palette_of(spec))
        self._writers: list[Mp4Writer] = []
        self._counts = np.zeros(256, np.int64)
        self._frames, self._size = 0, (0, 0)
        self._error: DeployError | None = None

    def draw(self, result: Result) -> Frame | None:
        return None if self._target is None else self._look.draw(result)

    def write(self, item: StreamFrame, result: Result, drawing: Frame | None) -> None:
        if self._target is not None and drawing is not None:
            drawn = replace(item, picture=drawing)
            self._writer(drawn, self._target).add(drawn)
        self._frames, self._size = self._frames + 1, item.size
        if self._folder is not None:
            self._folder.add(item.index, result.labels)
        self._counts += np.bincount(result.labels.ravel(), minlength=256)

    def unread(self, unread: Unread) -> None:
        self._error = unread.error

    def end(self) -> Written | None:
        if not self._frames:
            return None if self._error is None else Written(error=self._error)
        sound = self._sound if len(self._writers) == 1 else None
        notes = [f"The sound ({name}) was encoded as AAC: MP4 does not hold it." for name in self._recoded() if sound is not None]
        for writer in self._writers:
            writer.finish(sound)
        if self._folder is not None:
            self._folder.finish()
        files = (*(writer.target for writer in self._writers), *([self._folder.target] if self._folder is not None else []))
        shares = self._counts[: len(self._spec.classes)] / self._counts.sum()
        return Written(0, self._frames, self._size, shares, files, self._error, tuple(notes))

    def abort(self) -> None:
        for writer in self._writers:
            writer.abort()
        if self._folder is not None:
            self._folder.abort()

    def _recoded(self) -> tuple[str, ...]:
        from .sound import recoded

        return recoded(self._sound) if self._sound is not None else ()

    def _writer(self, item: StreamFrame, target: Path) -> Mp4Writer:
        from .mp4 import Mp4Writer, refuse_foreign_video

        if not self._writers or self._writers[-1].size != item.size:
            number = len(self._writers) + 1
            target = target if number == 1 else target.with_stem(f"{target.stem}_{number}")
            if number > 1:  # the first was checked before the run
                refuse_foreign_video(target)
            make_folder(target.parent)
            self._writers.append(Mp4Writer(target, item, keep=self._keep))
        return self._writers[-1]


class MapFolder:
    """A folder of label maps or other maps (H, W) uint8, INDEX.png, in the colours of `palette` if there is one.

    It gets its name in `finish`, and replaces an earlier one that holds nothing else.
    """

    def __init__(self, target: Path, palette: Sequence[Sequence[int]] | None = None) -> None:
        self.target, self._palette = target, palette
        self._stack = contextlib.ExitStack()
        self._partial: Path | None = None

    def add(self, index: int, values: NDArray[np.uint8]) -> None:
        if self._partial is None:
            self._partial = self._stack.enter_context(partial_folder(self.target))
        save_png(self._partial / f"{index:06}.png", values, palette=self._palette)

    def finish(self) -> None:
        if self._partial is None:
            return
        refuse_foreign_folder(self.target)
        with self._stack:
            try:
                if os.path.isdir(self.target):
                    shutil.rmtree(self.target)
                os.replace(self._partial, self.target)
            except OSError as error:
                raise OutputError(f"Cannot write {self.target}: {error.strerror or error}.") from error

    def abort(self) -> None:
        self._stack.close()


def refuse_foreign_folder(folder: Path) -> None:
    """Raises OutputError if a folder of label maps would replace something else."""
    if not os.path.lexists(folder):
        return
    if not os.path.isdir(folder) or any(not is_ours(path) for path in _entries(folder)):
        what = f"{folder} exists and holds other files than maps that rtformer-deploy wrote."
        raise OutputError(what, "Move it away, or choose another --output.")


def class_shares(labels: LabelMap, classes: int) -> NDArray[np.float64]:
    """A label map to the share of pixels of each class, (classes,)."""
    return np.bincount(labels.ravel(), minlength=classes)[:classes] / labels.size


def _entries(folder: Path) -> Iterator[Path]:
    try:
        yield from folder.iterdir()
    except OSError as error:
        raise OutputError(f"Cannot read the folder {folder}: {error.strerror or error}.") from error
