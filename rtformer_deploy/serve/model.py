"""A served model: one request's way from bytes to an answer, the same for every protocol."""

from __future__ import annotations

import asyncio
import threading
import time
import traceback
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..image.confidence import ConfidenceMap, confidence_map
from ..runtime.cpu_session import label_maps
from ..types import EngineInfo, Frame, LabelMap, ModelSpec
from .batcher import Answer, Batcher, BatchResult, Kind, Place
from .codec import Codec
from .engine_host import EngineHost
from .metrics import Metrics, Timing
from .settings import Limits

T = TypeVar("T")

#: A batch that has run this long, in seconds, will not end: the service is not alive any more.
STUCK_S = 60.0


@dataclass(frozen=True, slots=True, eq=False)
class Segmented:
    """A frame (H, W, 3) with its label map (H, W) and, if it was asked for, its confidence map (H, W)."""

    frame: Frame
    labels: LabelMap
    confidence: ConfidenceMap | None = None


class Model:
    """An engine under a name: admits requests, decodes their frames, batches them, encodes the answers."""

    def __init__(self, host: EngineHost, codec: Codec, limits: Limits, metrics: Metrics) -> None:
        self.name = host.name
        self.limits = limits
        self._host, self._codec, self._metrics = host, codec, metrics
        delay = limits.max_delay_s
        self.batcher = Batcher(self._run, largest=host.runner.max_batch, lanes=host.lanes, queue=limits.queue, max_delay_s=delay)
        metrics.add_model(host.name, lambda: self.batcher.waiting, lambda: self.batcher.inside)

    @property
    def spec(self) -> ModelSpec:
        return self._host.runner.spec

    @property
    def info(self) -> EngineInfo | None:
        """What the engine is; None for a network that PyTorch runs."""
        return self._host.runner.info

    @property
    def largest_batch(self) -> int:
        return self._host.runner.max_batch

    @property
    def down(self) -> str | None:
        """Why the engine answers nothing any more; None while it works."""
        return self._host.down

    @property
    def stuck(self) -> bool:
        """Whether a batch has been running for so long that the engine must hang."""
        return self.batcher.busy_s() > STUCK_S

    async def answer(
        self, load: Callable[[], Sequence[Frame]], encode: Callable[[Sequence[Segmented]], T], *, frames: int = 1, kind: Kind = "labels"
    ) -> tuple[T, Timing]:
        """One request of `frames` frames -> what `encode` makes of its label maps, and its times.

        `load` and `encode` run on the codec's threads. With the kind "logits" each frame has a confidence map too. Raises
        QueueFullError before anything is decoded, TimeoutError or LateError at the deadline, and what `load`, the engine or
        `encode` raises.
        """
        try:
            return await self._answer(load, encode, frames, kind)
        except BaseException as error:
            forget_locals(error)
            raise

    async def _answer(
        self, load: Callable[[], Sequence[Frame]], encode: Callable[[Sequence[Segmented]], T], frames: int, kind: Kind
    ) -> tuple[T, Timing]:
        deadline = asyncio.get_running_loop().time() + self.limits.deadline_s
        with self._metrics.request(self.name, frames) as timing, self.batcher.reserve(deadline, frames) as place:
            async with asyncio.timeout_at(deadline):
                loaded = await self._timed(load, timing, "decode_s")
                timing.answers = await _together([partial(place.run, frame, kind, deadline) for frame in loaded])
                finish = partial(self._finish, loaded, timing.answers, kind, encode)
                answer = await self._timed(finish, timing, "encode_s")
            if asyncio.get_running_loop().time() > deadline:  # a loop that is busy notices the time-out after the answer
                raise TimeoutError
            return answer, timing

    def start(self) -> None:
        """Starts batching, in the running event loop."""
        self.batcher.start()

    async def close(self) -> None:
        """Ends batching, then waits for the engine and closes it."""
        await self.batcher.close()
        await _on_a_daemon(self._host.close)

    async def _run(self, frames: Sequence[Frame], kind: Kind) -> BatchResult:
        result = await self._host.run(frames, kind)
        self._metrics.batch(self.name, len(frames))
        return result

    async def _timed(self, work: Callable[[], T], timing: Timing, field: str) -> T:
        began = time.perf_counter()
        result = await self._codec.run(work)
        setattr(timing, field, time.perf_counter() - began)
        return result

    def _finish(self, frames: Sequence[Frame], answers: Sequence[Answer], kind: Kind, encode: Callable[[Sequence[Segmented]], T]) -> T:
        values = [answer.value for answer in answers]
        if kind == "labels":
            return encode([Segmented(frame, labels) for frame, labels in zip(frames, values, strict=True)])
        return encode([self._from_logits(frame, logits) for frame, logits in zip(frames, values, strict=True)])

    def _from_logits(self, frame: Frame, logits: NDArray[np.float32]) -> Segmented:
        spec, threads, size = self.spec, self._host.runner.threads, (frame.shape[0], frame.shape[1])
        (labels,) = label_maps(logits[None], [size], spec, threads)
        likely = spec.probabilities
        return Segmented(frame, labels, confidence_map(logits, size, spec.size, spec.resize, threads=threads, probabilities=likely))


def forget_locals(error: BaseException) -> None:
    """Empties the local variables of this room's functions that an error came through and that have ended.

    They hold the request's frames, and the tasks that hold the error are among them: circles that only the garbage collector would break,
    which counts objects and not bytes. Under overload, with many requests late, memory grew by gigabytes.
    """
    seen: BaseException | None = error
    while seen is not None:
        for frame, _ in traceback.walk_tb(seen.__traceback__):
            if frame.f_code in _HOLDERS:  # no other: clearing one that waits, as a lane does, would end it
                frame.clear()
        seen = seen.__cause__ or seen.__context__


async def _together(calls: Sequence[Callable[[], Coroutine[None, None, Answer]]]) -> list[Answer]:
    """Runs calls side by side. If one fails, the others are cancelled before its error is raised."""
    tasks = [asyncio.create_task(call()) for call in calls]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


async def _on_a_daemon(work: Callable[[], None]) -> None:
    """Calls `work` on a thread that does not keep the event loop or the process alive if it never ends."""
    future: Future[None] = Future()

    def call() -> None:
        try:
            work()
        except BaseException as error:  # the one who awaits it gets it
            future.set_exception(error)
        else:
            future.set_result(None)

    future.set_running_or_notify_cancel()  # who gives up waiting does not cancel it
    threading.Thread(target=call, daemon=True).start()
    await asyncio.wrap_future(future)


#: The functions that hold a request's frames while it is answered.
_HOLDERS = frozenset(each.__code__ for each in (Model._answer, _together, Place.run, Batcher._answer))
