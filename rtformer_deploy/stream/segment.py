"""`rtformer_deploy.segment`: a source and an engine to results, one a frame. Public."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from ..backends import open_engine
from ..errors import DeployError, UsageError
from ..image.frames import images_in
from ..image.reader import ImageReader, silent
from ..image.selection import Selection
from ..opening import open_any
from ..runtime.frame_runner import FrameRunner
from ..runtime.runner import Runner
from ..types import Engine, Say
from .camera import camera_source
from .image_files import ImageFiles
from .inputs import Inputs, readable_videos, refuse_objects, sort_inputs
from .items import Counts, Source
from .live import LiveOptions
from .loop import Loop, LoopOptions
from .network import network_source
from .nvdec import Decode
from .result import Result
from .video_file import VideoFile

#: What `segment` takes as a source: a path, an address, a pattern, or a camera's number.
Given = str | Path | int


def segment(
    source: Given | Sequence[Given],
    engine: Path | str | Engine | Runner,
    *,
    batch: int = 1,
    every: int = 1,
    seconds: float | None = None,
    smooth: float | None = None,
    logits: bool = False,
    confidence: bool = False,
    selection: Selection | None = None,
    decode: Decode = "auto",
    device: int = 0,
    threads: int | None = None,
    say: Say = silent,
) -> Results:
    """Frames from anywhere through an engine -> an iterator of `Result`, one a frame, in order.

    `source` is an image, a folder, a pattern, a list (.txt, .streams), a video, an address (rtsp://, http://), a camera's number, or
    several of them. `engine` is a file as `open_any` takes, an engine, or a runner, which stays open. Reading goes on in threads while
    the engine works. Of a video every frame is given; a live source gives its newest one, and frames that nobody took are counted.

    `every` N: one frame of N of a video or a live source. `seconds`: how much of each. `smooth` from 0 to 1: the weight of earlier
    frames in a running mean of the logits. `logits` and `confidence`: results carry them. `selection`: which classes, which part
    of the frame, and from which confidence on (`image.selection.Selection`). `decode`: "auto" decodes videos on the GPU if the engine
    runs on one and NVDEC can, "gpu" refuses what it cannot, "cpu" leaves it out. `say` takes lines for a person, such as a lost connection.

    Raises UsageError for a call that is wrong, and while it runs ImageError and VideoError for what cannot be read.
    """
    refuse_wrong_numbers(batch, every, seconds, smooth)
    inputs = sort_inputs([source] if isinstance(source, str | Path | int) else source)
    refuse_objects(inputs)
    live = LiveOptions(every=every, seconds=seconds, stubborn=inputs.streams > 1, say=say)
    sources = [*_images(inputs, say), *videos_and_streams(inputs, live)]
    if not sources:
        raise UsageError("There is no source to segment.")
    runner, own = _runner(engine, device, threads)
    ahead = len(runner.sessions) if isinstance(runner, FrameRunner) else 1
    most = runner.max_batch if isinstance(runner, FrameRunner) else batch
    try:
        loop = Loop(sources, runner, LoopOptions(min(batch, most), ahead, smooth, logits, confidence, selection, decode, say))
    except DeployError:
        if own:
            runner.close()
        raise
    return Results(loop, runner if own else None)


class Results(Iterator[Result]):
    """The results of `segment`, one after another; `close`, or leaving it as a context, ends early. Then everything is closed."""

    def __init__(self, loop: Loop, runner: Runner | None) -> None:
        self._loop, self._runner = loop, runner
        self._events = loop.events()

    def __next__(self) -> Result:
        for event in self._events:
            if event.unread is not None:
                self.close()
                raise event.unread.error
            if event.result is not None:
                return event.result
        self.close()
        raise StopIteration

    @property
    def counts(self) -> dict[str, Counts]:
        """What happened to the frames so far, for each source: read, broken, dropped, and connections lost."""
        return {source.text: source.counts for source in self._loop.sources}

    def close(self) -> None:
        """Ends the sources, and closes the runner if it was opened here. Closing twice is fine."""
        self._events.close()
        self._loop.close()
        if self._runner is not None:
            self._runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def videos_and_streams(inputs: Inputs, live: LiveOptions) -> list[Source]:
    """Videos, cameras and addresses as sources, in this order."""
    videos: list[Source] = [VideoFile(path, every=live.every, seconds=live.seconds) for path, _ in inputs.videos]
    cameras: list[Source] = [camera_source(number, live) for number in inputs.cameras]
    return videos + cameras + [network_source(address, live) for address in inputs.addresses]


def refuse_wrong_numbers(batch: int, every: int, seconds: float | None, smooth: float | None) -> None:
    """Raises UsageError for numbers outside their range."""
    if batch < 1 or every < 1:
        raise UsageError(f"batch is {batch} and every is {every}; both are 1 or more.")
    if seconds is not None and not seconds > 0:
        raise UsageError(f"seconds is {seconds}; it is more than 0.")
    if smooth is not None and not 0 <= smooth < 1:
        raise UsageError(f"smooth is {smooth}; it is from 0 to below 1.")


def _images(inputs: Inputs, say: Say) -> list[Source]:
    paths = [image for path in inputs.images for image in (images_in(path, say, readable_videos()) if os.path.isdir(path) else [path])]
    return [ImageFiles(paths, reader=ImageReader(say=say))] if paths else []


def _runner(engine: Path | str | Engine | Runner, device: int, threads: int | None) -> tuple[Runner, bool]:
    """A runner, and whether it was opened here."""
    if isinstance(engine, str | Path):
        return open_any(Path(engine), device=device, threads=threads), True
    if isinstance(engine, Engine):
        return open_engine(engine, device=device, threads=threads), True
    return engine, False
