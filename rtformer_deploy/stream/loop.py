"""One loop for every source: threads read, the caller's thread runs the engine, results come in order."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DeployError
from ..image.confidence import ConfidenceMap, confidence_of
from ..image.reader import silent
from ..image.selection import Selection, with_unsure
from ..lanes.surfaces import in_one_place
from ..runtime.cpu_session import label_maps
from ..runtime.runner import Runner
from ..runtime.whole_logits import check_has_logits
from ..types import LabelMap, ModelSpec, Say, Ticket
from .image_files import ImageFiles
from .inbox import ClosedInboxError, Inbox
from .items import Item, Source, StreamFrame, Unread
from .nvdec import Decode, Nvdec, nvdec_for
from .result import Result
from .smooth import Smoother
from .stages import Stages

_JOIN_S = 2.0  # a reader that hangs is left behind


@dataclass(frozen=True, slots=True)
class LoopOptions:
    """How frames are run. `batch`: at once; `ahead`: submissions in flight while the next one is prepared.

    `smooth`: the weight of the frames before in the running mean of logits (None: off). `logits` and `confidence`: results carry them.
    `selection`: which pixels are asked for (None: all). `decode`: where videos are decoded; `say` gets a line if that is not where it
    was tried.
    """

    batch: int = 1
    ahead: int = 1
    smooth: float | None = None
    logits: bool = False
    confidence: bool = False
    selection: Selection | None = None
    decode: Decode = "auto"
    say: Say = silent

    @property
    def needs_confidence(self) -> bool:
        return self.confidence or (self.selection is not None and self.selection.least_confidence is not None)

    @property
    def needs_logits(self) -> bool:
        return self.logits or self.smooth is not None or self.needs_confidence


@dataclass(frozen=True, slots=True, eq=False)
class Event:
    """One thing that the loop gives, in a source's order: a result with its frame, an error, or neither: the source has ended."""

    source: Source
    item: StreamFrame | None = None
    result: Result | None = None
    unread: Unread | None = None


@dataclass(slots=True)
class _Flight:
    """Items on their way: those with frames are with the runner under `ticket`."""

    items: list[Item] = field(default_factory=list)
    ticket: Ticket | None = None

    @property
    def frames(self) -> list[StreamFrame]:
        return [item.frame for item in self.items if item.frame is not None]


class Loop:
    """Runs sources through a runner. `events` may be read once; `close` ends the threads and closes what they opened.

    Files are read one after the other in one thread, every live source in a thread of its own.
    """

    def __init__(self, sources: Sequence[Source], runner: Runner, options: LoopOptions | None = None) -> None:
        self.sources, self.runner, self.options = tuple(sources), runner, options or LoopOptions()
        self.spec = spec_of_results(runner.spec, self.options)
        self.stages = Stages()
        refuse_labels_head(runner, self.options)
        nvdec = nvdec_for(runner, self.options.decode, self.options.say)
        for images in self.sources:
            if isinstance(images, ImageFiles):
                images.frame = runner.frame
        self._stop = threading.Event()
        self._smoothers: dict[int, Smoother] = {}
        files = [source for source in self.sources if not source.live]
        lanes = [*([files] if files else []), *([source] for source in self.sources if source.live)]
        self._inbox = Inbox(len(lanes))
        self._threads = [
            threading.Thread(target=_feed, args=(lane, chain, self._inbox, self._stop, nvdec), name=f"decode {lane}", daemon=True)
            for lane, chain in enumerate(lanes)
        ]

    def events(self) -> Generator[Event]:
        """Every source's results, errors and end. Raises the error of a reader that is none of a source, and the runner's."""
        flights: deque[_Flight] = deque()
        for thread in self._threads:
            thread.start()
        try:
            while True:
                if flights and (len(flights) > self.options.ahead or not self._inbox.waiting()):
                    yield from self._land(flights.popleft())
                    continue
                flight = self._gather()
                if flight is None:
                    break
                with self.stages.measure("segment"):
                    self._launch(flight)
                flights.append(flight)
            while flights:
                yield from self._land(flights.popleft())
        finally:
            self.close()

    def stop(self) -> None:
        """Ends the sources soon; frames that were read are still run. May be called from a signal handler."""
        self._stop.set()

    def close(self) -> None:
        """Ends the sources and forgets frames that were not run."""
        self._stop.set()
        self._inbox.close()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(_JOIN_S)

    def count_decoding(self) -> None:
        """Brings the sources' decoding time into `stages`."""
        self.stages.busy["decode"] = sum(source.counts.busy for source in self.sources)

    def _gather(self) -> _Flight | None:
        """The next items, with up to `batch` frames. A live frame does not wait for others; None at the end."""
        flight = _Flight()
        item = self._inbox.take()
        while item is not None:
            flight.items.append(item)
            if len(flight.frames) >= self.options.batch or (item.source.live and not self._inbox.waiting()):
                return flight
            item = self._inbox.take()
        return flight if flight.items else None

    def _launch(self, flight: _Flight) -> None:
        if flight.frames and not self.options.needs_logits:
            pictures: list[Any] = in_one_place([item.picture for item in flight.frames])
            flight.ticket = self.runner.submit(pictures)

    def _land(self, flight: _Flight) -> Iterator[Event]:
        with self.stages.measure("segment"):
            results = iter(self._results(flight))
        for item in flight.items:
            if item.frame is None:
                yield Event(item.source, unread=item.unread)
                continue
            self.stages.frames += 1
            yield Event(item.source, item.frame, next(results))

    def _results(self, flight: _Flight) -> list[Result]:
        """The results of the flight's frames, in order."""
        sources = [item.source for item in flight.items if item.frame is not None]
        if flight.ticket is not None:
            maps = self.runner.result(flight.ticket)
            return [self._result(*each) for each in zip(sources, flight.frames, maps, strict=True)]
        return [self._from_logits(source, item) for source, item in zip(sources, flight.frames, strict=True)]

    def _from_logits(self, source: Source, item: StreamFrame) -> Result:
        spec, size = self.runner.spec, item.size
        threads: int | None = getattr(self.runner, "threads", None)
        picture: Any = item.picture
        logits = self.runner.logits([picture])[0]  # (classes, h, w)
        if self.options.smooth is not None and item.time is not None:
            logits = self._smoothers.setdefault(id(source), Smoother(self.options.smooth))(logits, size)
        (labels,) = label_maps(logits[None], [size], spec, threads)
        confidence = None
        if self.options.needs_confidence:
            confidence = confidence_of(logits, size, spec, threads)
        return self._result(source, item, labels, logits if self.options.logits else None, confidence)

    def _result(
        self,
        source: Source,
        item: StreamFrame,
        labels: LabelMap,
        logits: NDArray[np.float32] | None = None,
        confidence: ConfidenceMap | None = None,
    ) -> Result:
        time = None if item.time is None else float(item.time)
        if self.options.selection is not None:
            labels = self.options.selection.apply(labels, len(self.runner.spec.classes), confidence)
        shown = confidence if self.options.confidence else None
        return Result(item.picture, labels, item.name, source.text, item.index, time, self.spec, logits, shown)


def spec_of_results(spec: ModelSpec, options: LoopOptions) -> ModelSpec:
    """The model's spec -> the results': with the class "unsure" if pixels of low confidence become that."""
    return with_unsure(spec) if options.selection is not None and options.selection.least_confidence is not None else spec


def refuse_labels_head(runner: Runner, options: LoopOptions) -> None:
    """Raises UsageError if logits are needed of an engine that has none."""
    if options.needs_logits:
        what = "--smooth" if options.smooth is not None else "Confidence" if options.needs_confidence else "A result with logits"
        check_has_logits(runner.spec, f"{what} needs")


def _feed(lane: int, chain: Sequence[Source], inbox: Inbox, stop: threading.Event, nvdec: Nvdec | None) -> None:
    """A reader's life: the items of its sources, one source after the other, into the inbox."""
    try:
        for source in chain:
            _feed_one(lane, source, inbox, stop, nvdec)
    except ClosedInboxError:
        inbox.end(lane)
    except BaseException as error:  # it ends the run, in the caller's thread
        inbox.end(lane, error)
    else:
        inbox.end(lane)


def _feed_one(lane: int, source: Source, inbox: Inbox, stop: threading.Event, nvdec: Nvdec | None) -> None:
    items = source.items(stop, nvdec)
    with contextlib.closing(items):
        try:
            for item in items:
                inbox.put(lane, Item(source, unread=item) if isinstance(item, Unread) else Item(source, item))
        except DeployError as error:
            inbox.put(lane, Item(source, unread=Unread(source.counts.read, error)))
    inbox.put(lane, Item(source))
