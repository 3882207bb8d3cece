"""Frames of many requests to batches for one engine, as Triton's batcher forms them. There is no HTTP in here.

A lane that is free takes the frames that wait, oldest first and up to the engine's largest batch. With a delay it first waits
for more, but no longer than the delay from the oldest frame's arrival. The number of requests inside is bounded, each request has a
deadline, and a request whose caller was cancelled leaves the queue at once. A request that could not be in time is not admitted.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

from ..types import Frame

#: What a frame becomes: its label map (H, W) or the engine's logits (classes, h, w).
Kind = Literal["labels", "logits"]


@dataclass(frozen=True, slots=True)
class BatchResult:
    """One value for each frame of a batch, and the seconds that putting the frames in and waiting for the values took."""

    values: Sequence[Any]
    input_s: float
    infer_s: float


@dataclass(frozen=True, slots=True)
class Answer:
    """One frame's value, the seconds that it waited for a lane, its batch's two times, and the number of frames in that batch."""

    value: Any
    queue_s: float
    input_s: float
    infer_s: float
    batch: int


#: After each frame that was refused because a batch takes long, the estimate of that time shrinks by this factor: one slow batch must not
#: close the service for good.
_DOUBT = 0.95
_STOPPING = "the service is stopping"

#: Runs a batch: frames that all want the same kind -> their values.
RunBatch = Callable[[Sequence[Frame], Kind], Awaitable[BatchResult]]


class QueueFullError(Exception):
    """There is no room for the request, or it would be answered too late; there may be room in `retry_after_s` seconds."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"too many frames are inside; try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class LateError(Exception):
    """The request's deadline would pass before the engine could answer it."""


class ClosedError(Exception):
    """The batcher was closed while the request waited."""


@dataclass(eq=False, slots=True)
class _Waiting:
    frame: Frame
    kind: Kind
    deadline: float
    arrived: float
    future: asyncio.Future[Answer]


class Batcher:
    """Frames from any number of tasks of one event loop to batches for `run`, of which at most `lanes` are in flight.

    `largest` is the engine's largest batch, `queue` how many frames may be inside (from admission until they are answered) and
    `max_delay_s` how long the oldest frame waits for company. Deadlines and arrivals are in the event loop's time, in seconds.
    """

    def __init__(self, run: RunBatch, *, largest: int = 1, lanes: int = 1, queue: int = 64, max_delay_s: float = 0.0) -> None:
        self._run = run
        self._largest, self._lanes, self._limit, self._delay = largest, lanes, queue, max_delay_s
        self._queue: deque[_Waiting] = deque()
        self._inside = 0
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._running: dict[int, float] = {}  # lane -> when its batch began
        self._batch_s = 0.0  # how long a batch takes: a moving average, 0 before the first

    @property
    def inside(self) -> int:
        """Frames that were admitted and are not answered yet."""
        return self._inside

    @property
    def waiting(self) -> int:
        """Frames that wait for a lane."""
        return len(self._queue)

    @property
    def limit(self) -> int:
        """The most frames that may be inside."""
        return self._limit

    def start(self) -> None:
        """Starts the lanes, in the running event loop."""
        self._tasks = [asyncio.create_task(self._lane(index), name=f"lane {index}") for index in range(self._lanes)]

    async def close(self) -> None:
        """Stops the lanes. Frames that are not answered yet raise ClosedError."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        while self._queue:
            _fail(self._queue.popleft(), ClosedError(_STOPPING))

    def reserve(self, deadline: float, frames: int = 1) -> Place:
        """Room for a request of that many frames, to be answered by `deadline`.

        Raises QueueFullError, with more frames than could ever fit too, and if those that are inside already would make this one late:
        its caller learns it now, and not at the deadline.
        """
        if self._inside + frames > self._limit:
            raise QueueFullError(_whole_seconds(self._seconds_for(self._inside)))
        late_s = asyncio.get_running_loop().time() + self._seconds_for(self._inside + frames) - deadline
        if self._inside and late_s > 0:  # with nothing inside, the estimate of a batch's time could never change again
            raise QueueFullError(_whole_seconds(late_s))
        self._inside += frames
        return Place(self, frames)

    def busy_s(self) -> float:
        """How long the longest batch in flight has been running; 0 if none is."""
        return max((asyncio.get_running_loop().time() - began for began in self._running.values()), default=0.0)

    async def _answer(self, frame: Frame, kind: Kind, deadline: float) -> Answer:
        loop = asyncio.get_running_loop()
        waiting = _Waiting(frame, kind, deadline, loop.time(), loop.create_future())
        self._queue.append(waiting)
        self._wake.set()
        try:
            return await waiting.future
        finally:
            if waiting in self._queue:  # the caller was cancelled
                self._queue.remove(waiting)

    def _leave(self, frames: int) -> None:
        self._inside -= frames

    async def _lane(self, index: int) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = await self._next_batch()
            began = self._running[index] = loop.time()
            try:
                result = await self._run([each.frame for each in batch], batch[0].kind)
            except asyncio.CancelledError:
                for each in batch:
                    _fail(each, ClosedError(_STOPPING))
                raise
            except Exception as error:  # every engine's own errors; each request of the batch reports it
                for each in batch:
                    _fail(each, error)
            else:
                self._note(loop.time() - began)
                for each, value in zip(batch, result.values, strict=True):
                    _succeed(each, Answer(value, began - each.arrived, result.input_s, result.infer_s, len(batch)))
            finally:
                del self._running[index]

    async def _next_batch(self) -> list[_Waiting]:
        """Waits until there is a batch to run and takes it out of the queue."""
        while True:
            self._drop_late()
            wait = self._wait_s()
            if wait is not None and wait <= 0:
                return self._take()
            self._wake.clear()
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _wait_s(self) -> float | None:
        """How long to wait for more frames before the batch is taken; None: until there is a frame."""
        if not self._queue:
            return None
        if len(self._queue) >= self._largest:
            return 0.0
        now = asyncio.get_running_loop().time()
        patience = min(each.deadline - self._batch_s for each in self._queue)  # nobody is made late by the wait
        return min(self._queue[0].arrived + self._delay, patience) - now

    def _drop_late(self) -> None:
        """Fails the frames that would be answered too late, so that the engine works for those that can still be in time."""
        now = asyncio.get_running_loop().time()
        for each in [each for each in self._queue if each.deadline <= now + self._batch_s]:
            self._queue.remove(each)
            _fail(each, LateError("the deadline would pass before the engine could answer"))
            if each.deadline > now:
                self._batch_s *= _DOUBT

    def _take(self) -> list[_Waiting]:
        """The oldest frame and those right behind it that want the same kind, up to the largest batch."""
        batch = [self._queue.popleft()]
        while self._queue and len(batch) < self._largest and self._queue[0].kind == batch[0].kind:
            batch.append(self._queue.popleft())
        return batch

    def _note(self, seconds: float) -> None:
        self._batch_s = seconds if self._batch_s == 0 else 0.8 * self._batch_s + 0.2 * seconds

    def _seconds_for(self, frames: int) -> float:
        """How long that many frames take, as far as is known."""
        return math.ceil(frames / self._largest) / self._lanes * self._batch_s


class Place:
    """Room for one request in a Batcher, from admission until the block ends."""

    def __init__(self, batcher: Batcher, frames: int) -> None:
        self._batcher, self._frames = batcher, frames

    async def run(self, frame: Frame, kind: Kind, deadline: float) -> Answer:
        """Queues a frame and waits for its answer. Raises LateError, ClosedError, and whatever the engine raised."""
        return await self._batcher._answer(frame, kind, deadline)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._batcher._leave(self._frames)


def _whole_seconds(seconds: float) -> int:
    """When to try again: 1 to 60."""
    return min(60, max(1, math.ceil(seconds)))


def _succeed(waiting: _Waiting, answer: Answer) -> None:
    if not waiting.future.done():  # its caller may have left
        waiting.future.set_result(answer)


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.future.done():
        waiting.future.set_exception(error)
