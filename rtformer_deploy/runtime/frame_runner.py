"""Frames to label maps over one or more sessions: the Runner contract, the same for every backend."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import DeployError, EngineError, ImageError, UsageError
from ..image import frames as image
from ..lanes.device_arrays import DeviceFrame, device_frame, is_on_device
from ..types import EngineInfo, Frame, LabelMap, Logits, ModelSpec, Ticket
from .session import Session, Want, as_frame_session

Size = tuple[int, int]  # (H, W)


@dataclass(eq=False, slots=True)
class _Request:
    """A submission in flight: where it runs, what waits for it and makes its value, and in the end that value or its error."""

    session: Session
    finish: Callable[[], Any]
    done: bool = False
    value: Any = None
    error: Exception | None = None


class FrameRunner:
    """Implements `types.Runner` over sessions that share one engine. Any number of threads may use it.

    A submission takes the session that has been free longest. Where all are busy it finishes the oldest submission first: waits
    for it and makes its label maps, which stay with its ticket until `result` takes them. So no result is lost or overwritten, and
    what waits is label maps, not logits. Label maps are made in the thread that calls `result` (or that needs the session), or on the
    device, where the session is a FrameSession.

    `batch` is the engine's (min, opt, max): fewer frames than min are padded with whatever the input holds, and the padding's output
    is dropped. `threads` bounds the threads of pre- and post-processing (None: all). `info` is
    the engine's, for whoever reports on it (None: there is no engine, as with a PyTorch network). `start_ms` is how long opening took.

    Errors: UsageError for calls that are off (too many frames, a ticket that is unknown or was taken, use after close), ImageError for
    a frame that is none; what fails in the engine is raised by that ticket's `result` alone.
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
        self._running: deque[_Request] = deque()  # oldest first; a request leaves when a thread takes it on to finish it
        self._tickets: dict[int, _Request] = {}
        self._count = 0
        self._closed = False

    @property
    def max_batch(self) -> int:
        """The most frames that one submission holds."""
        return self.batch[2]

    @property
    def notes(self) -> tuple[str, ...]:
        """What the sessions have to say: how they started, and what they do without."""
        return tuple(dict.fromkeys(note for session in self.sessions for note in getattr(session, "notes", ())))

    def run(self, frames: Sequence[Frame]) -> list[LabelMap]:
        """Frames to label maps, in order; more than the largest batch are run in parts, over all sessions."""
        parts: list[list[LabelMap]] = self._run(frames, "labels")
        return [labels for part in parts for labels in part]

    def logits(self, frames: Sequence[Frame]) -> Logits:
        """Frames to the engine's own logits (N, classes, h, w) float32, copied out."""
        if self.spec.head == "labels":
            raise EngineError(
                "This engine was built with --head labels: it gives labels and has no logits.",
                "Export the model with --head lowres and build it again.",
            )
        parts: list[Logits] = self._run(frames, "logits")
        return np.concatenate(parts) if parts else np.empty((0, *map(int, self.spec.output.shape[1:])), np.float32)

    def submit(self, frames: Sequence[Any], *, stream: Any = None, on_device: bool = False) -> Ticket:
        """Preprocesses frames of any sizes in this thread, starts them and returns; see the class about a full house.

        On a GPU frames may also be device arrays (`__cuda_array_interface__`), all of them then; nothing is copied. The runner's work
        waits for what the caller's `stream` has been given so far, and that stream waits until the frames have been read.
        `on_device` asks for label maps on the GPU: objects with `__cuda_array_interface__`, uint8 (H, W).
        """
        return self._submit(frames, "device labels" if on_device else "labels", stream)

    def result(self, ticket: Ticket) -> list[LabelMap]:
        """The label maps of one submission, each at its frame's size; waits for that one alone. A ticket is taken once."""
        labels: list[LabelMap] = self._result(ticket)
        return labels

    def close(self) -> None:
        """Waits for what is in flight, then gives up the sessions. Results that were not taken are gone. Closing twice is fine."""
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

    # The stages, one by one, for bench.

    def preprocess_into(self, session: Session, frames: Sequence[Frame]) -> None:
        """Frames into the session's input, which nothing else may use meanwhile."""
        spec = self.spec
        for index, frame in enumerate(frames):
            image.preprocess(frame, spec.size, spec.mean, spec.std, spec.resize, out=session.input[index], threads=self.threads)

    def engine_batch(self, frames: int) -> int:
        """The batch to start for so many frames: at least the engine's smallest."""
        return max(frames, self.batch[0])

    def postprocess(self, output: NDArray[Any], sizes: Sequence[Size]) -> list[LabelMap]:
        """A session's output to label maps of these (H, W); what lies beyond them is padding.

        Logits of any stride are interpolated once, straight to the frame's size, then argmax; labels are resized to the nearest.
        """
        spec = self.spec
        if spec.head == "labels":
            return [image.resize_labels(labels, size, spec.size, spec.resize) for labels, size in zip(output, sizes, strict=False)]
        return [
            image.upsample_argmax(logits, size, spec.size, spec.resize, threads=self.threads)
            for logits, size in zip(output, sizes, strict=False)
        ]

    def load(self, session: Session, frames: Sequence[Any], stream: Any = None) -> None:
        """Frames into the session, as `execute` wants them: preprocessed, or as they are where the session's device does that."""
        own = as_frame_session(session)
        if own is None:
            self.preprocess_into(session, frames)
        else:
            own.load(frames, stream)

    def execute(self, session: Session, frames: int) -> Any:
        """Runs what `load` put in and waits; gives what `labels_of` takes."""
        own = as_frame_session(session)
        if own is not None:
            own.begin("labels")
            return own.take()
        session.start(self.engine_batch(frames))
        return session.wait()

    def labels_of(self, session: Session, output: Any, sizes: Sequence[Size]) -> list[LabelMap]:
        """What `execute` gave -> label maps of these (H, W)."""
        labels: list[LabelMap] = output if as_frame_session(session) is not None else self.postprocess(output, sizes)
        return labels

    # What submit, run and logits share.

    def _begin(self, session: Session, sizes: Sequence[Size], want: Want) -> Callable[[], Any]:
        """Starts what was loaded; what waits for it and makes the value."""
        own = as_frame_session(session)
        if own is not None:
            own.begin(want)
            return own.take
        session.start(self.engine_batch(len(sizes)))
        if want == "logits":
            return lambda: np.array(session.wait()[: len(sizes)], np.float32)
        return lambda: self.postprocess(session.wait(), sizes)

    def _run(self, frames: Sequence[Any], want: Want) -> list[Any]:
        """Submits frames in parts, never more parts at once than there are sessions; their values in order."""
        _checked_frames(frames)
        self._check_open()
        waiting: deque[Ticket] = deque()
        values: list[Any] = []
        try:
            for start in range(0, len(frames), self.max_batch):
                if len(waiting) == len(self.sessions):
                    values.append(self._result(waiting.popleft()))
                waiting.append(self._submit(frames[start : start + self.max_batch], want))
            while waiting:
                values.append(self._result(waiting.popleft()))
        finally:
            with self._changed:  # where one part failed, nobody will ask for the others
                for ticket in waiting:
                    self._tickets.pop(ticket.number, None)
        return values

    def _submit(self, frames: Sequence[Any], want: Want, stream: Any = None) -> Ticket:
        frames = _checked_frames(frames)
        if not 1 <= len(frames) <= self.max_batch:
            raise UsageError(
                f"{len(frames)} frames were submitted at once; this engine takes 1 to {self.max_batch}.",
                "Submit fewer, use run, which splits them, or build the engine with a larger --max.",
            )
        device = isinstance(frames[0], DeviceFrame)
        if (device or stream is not None or want == "device labels") and as_frame_session(self.sessions[0]) is None:
            raise UsageError("Only a TensorRT engine takes frames on the GPU, streams and on_device.", "Pass NumPy arrays.")
        if stream is not None and not device:
            raise UsageError("A stream orders frames that are on the GPU; these are in host memory.", "Leave stream out.")
        session = self._take_session()
        try:
            self.load(session, frames, stream)
            finish = self._begin(session, [(frame.shape[0], frame.shape[1]) for frame in frames], want)
        except BaseException:
            self._give_back(session)
            raise
        request = _Request(session, finish)
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
            mine = request in self._running
            if mine:
                self._running.remove(request)
            else:
                self._changed.wait_for(lambda: request.done)
        if mine:
            self._finish(request)
        if isinstance(request.error, DeployError):
            raise request.error
        if request.error is not None:
            raise EngineError(f"The engine failed on this request: {request.error}") from request.error
        return request.value

    def _finish(self, request: _Request, *, keep_session: bool = False) -> None:
        """Waits for a request that this thread took on, makes its value or keeps its error, and frees its session."""
        try:
            request.value = request.finish()
        except Exception as error:  # whatever a backend raises belongs to this request's ticket, which raises it
            request.error = error
        except BaseException:  # interrupted: it is still in flight, and close has to wait for it
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
        """A session that nothing uses: a free one, or the oldest request's once it is finished."""
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
        """For close: a request to finish, or None once every session is free, whichever thread has it now."""
        with self._changed:
            self._changed.wait_for(lambda: self._running or len(self._free) == len(self.sessions))
            return self._running.popleft() if self._running else None

    def _check_open(self) -> None:
        with self._changed:
            self._raise_if_closed()

    def _raise_if_closed(self) -> None:
        if self._closed:
            raise UsageError("This runner was closed.", "Open the engine again.")


def _checked_frames(frames: Sequence[Any]) -> Sequence[Any]:
    """Frames as the sessions take them: NumPy arrays, or DeviceFrames. Raises ImageError for what is no frame."""
    on_device = [is_on_device(frame) for frame in frames]
    if any(on_device):
        if not all(on_device):
            raise UsageError("Some of the frames are on the GPU and some in host memory.", "Submit them apart.")
        return [device_frame(frame, index) for index, frame in enumerate(frames)]
    for index, frame in enumerate(frames):
        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
            given = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
            raise ImageError(f"Frame {index} is {given}; a frame is RGB uint8 (H, W, 3).", "Read images with rtformer_deploy.load_image.")
    return frames
