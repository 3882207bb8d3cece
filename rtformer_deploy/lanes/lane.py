"""A lane: frames to label maps on a GPU, in one stream and, once it has been tested, as one CUDA graph.

Pinned frame -> copy -> preprocess kernel -> engine -> upsample-and-argmax kernel -> copy of one byte for each pixel. Several lanes keep
several frames in flight.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import UsageError
from ..image.frames import resize_labels
from ..nvidia import driver as driver
from ..runtime.session import OutputKind
from ..types import Frame, LabelMap
from .device_arrays import CallersStream, DeviceFrame, DeviceLabels, check_frames, check_memory, check_stream, lasting_stream, stream_handle
from .engine_lane import EngineLane
from .kernels import FLAG_BYTES, check_flag
from .memory import FrameMemory, Placed
from .request import LaneWork, Step
from .shared import LaneShare

#: Streams of callers that a lane knows. Only the handle is kept: the caller may destroy its stream.
_CALLERS = 16


class Lane(EngineLane):
    """Implements `Session` on a GPU: an EngineLane with the kernels before and after it, and the memory of frames and label maps.

    That memory grows with the largest submission; apart from that nothing is allocated after the first frame of a size. The second
    submission of a shape captures its CUDA graph and tests it, so that one `begin` takes longer. `start` and `wait` run only the engine.
    """

    def __init__(self, share: LaneShare) -> None:
        with share.current() as gpu:
            self._frames_complete = gpu.create_event()  # the caller's frames are complete
            self._frames_read = gpu.create_event()  # the caller's frames have been read
        super().__init__(share)  # only now, since `share` counts on the `close` of each lane that was opened
        self._memory = FrameMemory(self._cuda, self._stream, share.kernels, share.engine.info.batch[2], self._graphs)
        self._frames: list[DeviceFrame] | None = None  # loaded frames that are on the device
        self._placed: list[Placed] = []
        self._callers: list[Any] = []  # the streams that produce the frames
        self._reader_source: CallersStream | None = None  # the caller's stream behind `_reader`
        self._reader = self._cuda.LEGACY_DEFAULT_STREAM
        self._caller = functools.lru_cache(maxsize=_CALLERS)(self._cuda.Stream.from_handle)

    @property
    def engine(self) -> EngineLane:
        """The lane itself: `start` and `wait` run only the engine."""
        return self

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user about all lanes of the runner."""
        return tuple(self._share.notes)

    # Frames to label maps.

    def check(self, frames: Sequence[Any], kind: OutputKind, stream: Any) -> Sequence[Frame] | Sequence[DeviceFrame]:
        device_or_host = check_frames(frames)
        if stream is not None and not any(isinstance(frame, DeviceFrame) for frame in device_or_host):
            raise UsageError("A stream orders frames that are on the GPU; these are in host memory.", "Leave stream out.")
        return device_or_host

    def load(self, frames: Sequence[Any], stream: Any = None) -> None:
        """See `Session`. Raises UsageError for memory or streams of another GPU or context."""
        with self._at_work() as gpu:
            self._come_to_rest()
            self._finish, self._callers = None, []
            self._set_reader(gpu, stream)
            on_device = [frame for frame in frames if isinstance(frame, DeviceFrame)]
            self._frames = on_device or None
            if on_device:
                self._accept(on_device, stream)
            sizes = [(int(frame.shape[0]), int(frame.shape[1])) for frame in frames]
            labels = self._share.engine.info.spec.head != "labels"
            self._placed = self._memory.place(gpu, sizes, on_host=not on_device, with_labels=labels)
            if not on_device:
                for frame, placed in zip(frames, self._placed, strict=True):
                    np.copyto(self._memory.host_frame(placed), frame)

    def begin(self, kind: OutputKind) -> None:
        with self._at_work() as gpu, self._at_rest_if_refused():
            labels_head = self._share.engine.info.spec.head == "labels"
            if labels_head and kind == "device labels":
                raise UsageError("An engine that was built with --head labels gives its label maps in host memory.")
            self._finish = None
            batch = max(len(self._placed), self._share.engine.info.batch[0])
            self._open_contexts().use(batch)
            if self._frames is not None:
                self._preprocess()
            tail = "device" if kind == "device labels" else "output" if kind == "logits" or labels_head else "labels"
            work = self._frame_work(tail, batch)
            sizes = tuple([placed.tables.size for placed in self._placed])  # a list, since the garbage collector would count each generator
            key = ("frames" if self._frames is None else "input", tail, batch, sizes)
            self._launch(self._graph(key, f"{len(sizes)} x {sizes[0][0]}x{sizes[0][1]}", work), work)
            device_labels = self._device_labels(gpu) if tail == "device" else None
            self._stream.record(self._done)
            for caller in self._callers:
                caller.wait(self._frames_read)  # so the caller may overwrite a frame once it has been read
            self._finish = self._finisher(kind, tail, device_labels)

    def take(self) -> Any:
        value = super().take()
        self._frames = None  # the caller's memory is no longer needed
        return value

    def _free(self) -> None:
        self._contexts = None
        self._memory.close()
        self._frames_complete.close()
        self._frames_read.close()
        super()._free()

    # The steps.

    def _frame_work(self, tail: str, batch: int) -> LaneWork:
        """The steps from frames or the engine's input to `tail`: "labels", the "output" in host memory, or the output on the "device"."""
        steps: list[Step] = [self._copy_frames, self._preprocess] if self._frames is None else []
        steps.append(self._execute)
        if tail == "labels":
            steps += [self._clear_flag, self._upsample, self._copy_labels]
        elif tail == "output":
            steps.append(self._copy_output)
        frames = self._memory.frames if self._frames is None else None
        if tail != "labels":
            return self._work(steps, self._preprocess, batch, frames)
        maps = [self._memory.host_labels(placed) for placed in self._placed]
        return self._work(steps, self._preprocess, batch, frames, self._memory.labels, maps)

    def _copy_frames(self) -> None:
        assert self._memory.frames is not None
        self._memory.frames.to_device(self._stream)

    def _copy_labels(self) -> None:
        assert self._memory.labels is not None
        self._memory.labels.to_host(self._stream)

    def _preprocess(self) -> None:
        for index, placed in enumerate(self._placed):
            if self._frames is not None:
                address = self._frames[index].address
            else:
                assert self._memory.frames is not None
                address = self._memory.frames.address + placed.frame_start
            self._share.kernels.preprocess(self._stream, address, placed.tables, placed.tables_at, self._source.address, index)
        if self._frames is not None:
            self._stream.record(self._frames_read)

    def _clear_flag(self) -> None:
        assert self._memory.labels is not None
        self._memory.labels.clear_first(FLAG_BYTES, self._stream)

    def _upsample(self) -> None:
        assert self._memory.labels is not None
        start = self._memory.labels.address
        for index, placed in enumerate(self._placed):
            self._upsample_one(index, placed, start + placed.labels_start, start)

    def _upsample_one(self, index: int, placed: Placed, labels: int, flag: int) -> None:
        self._share.kernels.upsample_argmax(self._stream, self._target.address, placed.tables, placed.tables_at, labels, flag, index)

    def _device_labels(self, gpu: Any) -> list[DeviceLabels]:
        """Makes label maps in device memory of their own, for the caller. The flag is copied to the host as usual."""
        device_labels = []
        self._clear_flag()
        assert self._memory.labels is not None
        for index, placed in enumerate(self._placed):
            own = gpu.allocate(placed.tables.label_bytes, stream=self._stream)
            own.set_deallocation_stream(self._reader)
            self._upsample_one(index, placed, int(own.handle), self._memory.labels.address)
            device_labels.append(DeviceLabels(placed.tables.size, int(own.handle), own))
            self._share.health.watch(device_labels[-1])
        self._memory.labels.first_to_host(FLAG_BYTES, self._stream)
        return device_labels

    def _set_reader(self, gpu: Any, stream: Any) -> None:
        """Sets the stream in whose order the memory of label maps is freed; see DeviceLabels."""
        if self._reader_source is not None and self._reader_source.stream is stream:
            return
        self._reader_source = lasting_stream(stream)
        self._reader = self._cuda.LEGACY_DEFAULT_STREAM if self._reader_source is None else gpu.create_stream(self._reader_source)

    # What is made of the output.

    def _finisher(self, kind: OutputKind, tail: str, device_labels: list[DeviceLabels] | None) -> Callable[[], Any]:
        if kind == "logits":
            return lambda: self._target.array[: len(self._placed)].astype(np.float32)
        if tail == "output":
            return self._resized_labels
        return lambda: self._checked_labels(device_labels)

    def _resized_labels(self) -> list[LabelMap]:
        spec = self._share.engine.info.spec
        outputs = zip(self._target.array, self._placed, strict=False)
        count = len(spec.classes)
        return [resize_labels(labels.copy(), placed.tables.size, spec.size, spec.resize, classes=count) for labels, placed in outputs]

    def _checked_labels(self, device_labels: list[DeviceLabels] | None) -> list[Any]:
        check_flag(self._memory.flag())
        return device_labels if device_labels is not None else [self._memory.host_labels(placed).copy() for placed in self._placed]

    # The caller.

    def _accept(self, frames: Sequence[DeviceFrame], stream: Any) -> None:
        """Checks a caller's frames and makes the lane's stream wait until they are complete."""
        context = driver.current_context()
        for index, frame in enumerate(frames):
            check_memory(frame, index, self._share.device, context)
        handles = {frame.stream for frame in frames if frame.stream is not None} if stream is None else {stream_handle(stream)}
        for handle in handles:
            check_stream(handle, context)
            caller = self._caller(handle)
            caller.record(self._frames_complete)  # `wait(caller)` would create an event each time
            self._stream.wait(self._frames_complete)
            self._callers.append(caller)
