"""Frames to label maps over one or more sessions: the Runner contract, the same for every backend."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ..errors import DeployError, EngineError, UsageError
from ..types import EngineInfo, Frame, LabelMap, Logits, ModelSpec, Ticket
from .frame_checks import check_size
from .session import OutputKind, Session


@dataclass(eq=False, slots=True)
class _Request:
    """A submission in flight: the session that works on it, and later its value or error."""

    session: Session
    done: bool = False
    value: Any = None
    error: Exception | None = None


class FrameRunner:
    """Implements `runner.Runner` over sessions that share one engine. Any number of threads may use it.

    A submission takes the session that has been free longest. If every session is busy, it first finishes the oldest request: it waits
    for that request and makes its label maps, which stay with its ticket until `result` takes them. So no result is lost or overwritten,
    and the runner stores label maps, not logits. Label maps are made in the thread that calls `result` (or that needs the session), or
    on the device if the session works there.

    `batch` is the engine's (min, opt, max). `threads` is how many CPU threads the sessions may use (None: all), for code that does part
    of their work outside them. `info` describes the engine, for reports (None: there is no engine, as with a PyTorch network).
    `start_ms` is how long opening took.

    Errors: UsageError for wrong calls (too many frames, a ticket that is unknown or was taken, use after close), ImageError if something
    is not a frame. If the engine fails on a request, only `result` for that ticket raises.
    """

    def __init__(
        self,
        sessions: Sequence[Session],
        spec: ModelSpec,
        batch: tuple[int, int, int],
        threads: int | None = None,
        info: EngineInfo | None = None,
    ) -> None:
        self.sessions = tuple(sessions)
        self.spec = spec
        self.batch = batch
        self.threads = threads
        self.info = info
        self.start_ms: float | None = None
        self._changed = threading.Condition()
        self._free = deque(self.sessions)
        self._running: deque[_Request] = deque()  # oldest first; a thread removes a request before it finishes it
        self._tickets: dict[int, _Request] = {}
        self._count = 0
        self._closed = False

    @property
    def max_batch(self) -> int:
        """The most frames that one submission holds."""
        return self.batch[2]

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user: the engine's own, and the sessions': how they started, what is unavailable. Each note appears once."""
        own = () if self.info is None else self.info.notes
        return tuple(dict.fromkeys((*own, *(note for session in self.sessions for note in session.notes))))

    def frame(self, size: tuple[int, int]) -> Frame:
        """A frame of (H, W) to decode or write into, with any content; `submit` and `run` take it, or contiguous rows of it, as any frame.

        On a GPU it is pinned memory, which is not copied: from `submit` until its ticket's `result` has returned, do not write to it. The
        memory belongs to the caller as long as a reference to it or to a view of it is left, after `close` too; then it is used for a later
        frame. So take a new one for each frame and let it go. Of these, as many are pinned as twice what all lanes have in flight; while
        more are held, and on a CPU, it is an ordinary array.
        """
        self._check_open()
        check_size(size)
        return self.sessions[0].frame((int(size[0]), int(size[1])))

    def run(self, frames: Sequence[Frame]) -> list[LabelMap]:
        """Frames to label maps, in order. More frames than the largest batch are run in parts, over all sessions."""
        parts: list[list[LabelMap]] = self._run(frames, "labels")
        return [labels for part in parts for labels in part]

    def logits(self, frames: Sequence[Frame]) -> Logits:
        """Frames to a copy of the engine's own logits, (N, classes, h, w) float32."""
        if self.spec.head == "labels":
            raise EngineError(
                "This engine was built with --head labels: it gives labels and has no logits.",
                "Export the model with --head lowres and build it again.",
            )
        parts: list[Logits] = self._run(frames, "logits")
        return np.concatenate(parts) if parts else np.empty((0, *map(int, self.spec.output.shape[1:])), np.float32)

    def submit(self, frames: Sequence[Any], *, stream: Any = None, on_device: bool = False) -> Ticket:
        """Preprocesses frames of any sizes in this thread, starts them and returns their ticket.

        If every session is busy, it first finishes the oldest request. On a GPU all frames may also be device arrays
        (`__cuda_array_interface__`); they are not copied. The runner's work waits for everything queued so far in the caller's
        `stream`, and that stream waits until the frames have been read. `on_device` asks for label maps on the GPU: objects with
        `__cuda_array_interface__`, uint8 (H, W).
        """
        return self._submit(frames, "device labels" if on_device else "labels", stream)

    def result(self, ticket: Ticket) -> list[LabelMap]:
        """Waits for this submission only and returns its label maps, each at its frame's size. A ticket can be used once.

        The label maps are the caller's own. On a GPU they are views of pinned memory, which is used again only once no reference to any of
        the submission's label maps, or to a view of them, is left; if a caller holds those of more than twice as many submissions as there
        are lanes, further ones are ordinary copies.
        """
        labels: list[LabelMap] = self._result(ticket)
        return labels

    def close(self) -> None:
        """Waits for all requests in flight, then closes the sessions. Results not yet taken are lost. Closing twice is fine."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._tickets.clear()
            self._changed.notify_all()
        while (request := self._oldest_or_none_left()) is not None:
            self._finish(request)
        for session in self.sessions:
            session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def engine_batch(self, frames: int) -> int:
        """The batch size for running only the engine on this many frames: at least the engine's smallest."""
        return max(frames, self.batch[0])

    def _run(self, frames: Sequence[Any], kind: OutputKind) -> list[Any]:
        """Submits frames in parts, at most one part per session at a time, and returns their values in order."""
        self.sessions[0].check(frames, kind, None)
        self._check_open()
        waiting: deque[Ticket] = deque()
        values: list[Any] = []
        try:
            for start in range(0, len(frames), self.max_batch):
                if len(waiting) == len(self.sessions):
                    values.append(self._result(waiting.popleft()))
                waiting.append(self._submit(frames[start : start + self.max_batch], kind))
            while waiting:
                values.append(self._result(waiting.popleft()))
        finally:
            with self._changed:  # if one part failed, nobody will ask for the others
                for ticket in waiting:
                    self._tickets.pop(ticket.number, None)
        return values

    def _submit(self, frames: Sequence[Any], kind: OutputKind, stream: Any = None) -> Ticket:
        session_frames = self.sessions[0].check(frames, kind, stream)  # all sessions are of one kind
        if not 1 <= len(frames) <= self.max_batch:
            raise UsageError(
                f"{len(frames)} frames were submitted at once; this engine takes 1 to {self.max_batch}.",
                "Submit fewer, use run, which splits them, or build the engine with a larger --max.",
            )
        session = self._take_session()
        try:
            session.load(session_frames, stream)
            session.begin(kind)
        except BaseException:
            self._give_back(session)
            raise
        request = _Request(session)
        with self._changed:
            self._count += 1
            ticket = Ticket(self._count)
            self._running.append(request)
            if not self._closed:
                self._tickets[ticket.number] = request
            self._changed.notify_all()
        return ticket

    def _result(self, ticket: Ticket) -> Any:
        self._check_open()
        with self._changed:
            request = self._tickets.pop(ticket.number, None)
            if request is None:
                raise UsageError(f"Ticket {ticket.number} is unknown here, or its result was taken already.")
            # The request is in flight, or another thread is finishing it. If that thread is interrupted, this one finishes the request.
            self._changed.wait_for(lambda: request.done or request in self._running)
            mine = not request.done
            if mine:
                self._running.remove(request)
        if mine:
            self._finish(request)
        if isinstance(request.error, DeployError):
            raise request.error
        if request.error is not None:
            raise EngineError(f"The engine failed on this request: {request.error}") from request.error
        return request.value

    def _finish(self, request: _Request, *, keep_session: bool = False) -> None:
        """Waits for a request that this thread took, stores its value or error, and frees its session."""
        try:
            request.value = request.session.take()
        except Exception as error:  # any backend error belongs to this request, and `result` raises it
            request.error = error
        except BaseException:  # interrupted: the request is still in flight, for another waiter or for close
            with self._changed:
                self._running.appendleft(request)
                self._changed.notify_all()
            raise
        with self._changed:
            request.done = True
            if not keep_session:
                self._free.append(request.session)
            self._changed.notify_all()

    def _take_session(self) -> Session:
        """Returns an unused session: a free one, or the oldest request's after finishing that request."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._free or self._running)
            self._raise_if_closed()
            if self._free:
                return self._free.popleft()
            request = self._running.popleft()
        self._finish(request, keep_session=True)
        return request.session

    def _give_back(self, session: Session) -> None:
        with self._changed:
            self._free.append(session)
            self._changed.notify_all()

    def _oldest_or_none_left(self) -> _Request | None:
        """For close: the next request to finish, or None once every session is free. Waits for requests that other threads finish."""
        with self._changed:
            self._changed.wait_for(lambda: self._running or len(self._free) == len(self.sessions))
            return self._running.popleft() if self._running else None

    def _check_open(self) -> None:
        with self._changed:
            self._raise_if_closed()

    def _raise_if_closed(self) -> None:
        if self._closed:
            raise UsageError("This runner was closed.", "Open the engine again.")
