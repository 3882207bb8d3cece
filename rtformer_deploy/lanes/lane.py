"""A lane: frames to label maps on a GPU, in one stream and, once it has been tested, as one CUDA graph.

Pinned frame -> copy -> preprocess kernel -> engine -> upsample-and-argmax kernel -> copy of one byte for each pixel into pinned memory,
which the caller gets. Several lanes keep several frames in flight.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import EngineError, UsageError, one_line
from ..image.copies import copy_frame, copy_threads
from ..image.frames import resize_labels
from ..image.geometry import Size
from ..nvidia import driver as driver
from ..runtime.session import OutputKind
from ..types import Frame, LabelMap
from .device_arrays import CallersStream, DeviceFrame, DeviceLabels, check_frames, check_memory, check_stream, lasting_stream, stream_handle
from .engine_lane import EngineLane
from .kernels import FLAG_BYTES, check_flag
from .memory import FrameMemory, Placed
from .pinned import PinnedBlock
from .request import LaneWork, Step
from .shapes import Shape, Shapes, Tail
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
        self._memory = FrameMemory(self._cuda, self._stream, share.kernels, share.engine.info.batch[2], share.frames, self._forget)
        self._shapes = Shapes(self._stream, self._memory, share.engine.info.spec.head != "labels")
        self._shape: Shape | None = None  # that of the loaded frames
        self._frames: Sequence[Any] = ()  # loaded frames that are read where they are
        self._labels: PinnedBlock | None = None  # where the next label maps go, or the last ones are
        self._callers: list[Any] = []  # the streams that produce the frames
        self._threads = copy_threads()
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

    def frame(self, size: Size) -> Frame:
        """See `Session`. It is pinned memory, unless there is none, or callers hold twice what all lanes can have in flight."""
        array = None
        try:
            with self._share.health.watching(self._probe):
                array = self._share.frames.array((*size, 3))
        except EngineError as error:
            self._share.health.check()  # raises if the GPU has failed, and not only this allocation
            self._share.say(f"There was no pinned memory for a frame, so frames are copied: {one_line(error)}")
        return np.empty((*size, 3), np.uint8) if array is None else array

    def check(self, frames: Sequence[Any], kind: OutputKind, stream: Any) -> Sequence[Frame] | Sequence[DeviceFrame]:
        device_or_host = check_frames(frames)
        if stream is not None and not any(isinstance(frame, DeviceFrame) for frame in device_or_host):
            raise UsageError("A stream orders frames that are on the GPU; these are in host memory.", "Leave stream out.")
        return device_or_host

    def load(self, frames: Sequence[Any], stream: Any = None) -> None:
        """See `Session`. Raises UsageError for memory or streams of another GPU or context."""
        with self._at_work() as gpu:
            self._come_to_rest()
            self._finish, self._shape, self._frames = None, None, ()
            self._callers.clear()
            self._set_reader(gpu, stream)
            sizes = tuple([frame.shape[:2] for frame in frames])  # a list, since the garbage collector would count each generator
            if frames and isinstance(frames[0], DeviceFrame):
                self._accept(frames, stream)
                self._shape, self._frames = self._shapes.get(gpu, "device", sizes), frames
            else:
                self._shape = self._load_from_host(gpu, frames, sizes)

    def begin(self, kind: OutputKind) -> None:
        with self._at_work() as gpu, self._at_rest_if_refused():
            labels_head = self._share.engine.info.spec.head == "labels"
            if labels_head and kind == "device labels":
                raise UsageError("An engine that was built with --head labels gives its label maps in host memory.")
            self._finish = None
            shape = self._loaded()
            batch = max(len(shape.sizes), self._share.engine.info.batch[0])
            self._open_contexts().use(batch)
            if shape.origin == "device":
                self._preprocess()
            tail: Tail = "device" if kind == "device labels" else "output" if kind == "logits" or labels_head else "labels"
            if tail != "output":
                self._aim_labels(shape)
            work = self._work_of(shape, tail, batch)
            self._launch(self._graph(work), work)
            device_labels = self._make_device_labels(gpu) if tail == "device" else None
            self._stream.record(self._done)
            for caller in self._callers:
                caller.wait(self._frames_read)  # so the caller may overwrite a frame once it has been read
            self._finish = self._finisher(kind, tail, device_labels)

    def take(self) -> Any:
        try:
            value = super().take()
        except Exception:  # not an interrupt: then the request goes on
            self._frames = ()
            raise
        self._frames = ()  # the caller's memory is no longer needed
        return value

    def _free(self) -> None:
        self._contexts, self._frames = None, ()
        self._memory.close()
        if self._labels is not None:
            self._share.labels.leave(self._labels)
            self._labels = None
        self._frames_complete.close()
        self._frames_read.close()
        super()._free()

    # The steps.

    def _load_from_host(self, gpu: Any, frames: Sequence[Frame], sizes: tuple[Size, ...]) -> Shape:
        """Points the copies at frames in memory that was lent, and copies the others to the lane's own."""
        places = [self._share.frames.place(frame) for frame in frames]
        shape = self._shapes.get(gpu, "lent" if any(places) else "host", sizes)
        own = None if all(places) else self._memory.staging(shape.layout.frame_bytes)
        if shape.origin == "host" and own is not None:
            shape.frames[0].set(own)
        for index, (frame, place) in enumerate(zip(frames, places, strict=True)):
            if place is not None:
                shape.frames[index].set(*place)
            elif own is not None:
                start = shape.layout.placed[index].frame_start
                copy_frame(frame, own.array[start : start + frame.size], self._threads)
                if shape.origin == "lent":
                    shape.frames[index].set(own, start)
        if shape.origin == "lent":
            self._frames = tuple(frames)  # not the caller's list, which may be emptied
        return shape

    def _work_of(self, shape: Shape, tail: Tail, batch: int) -> LaneWork:
        """The steps from frames or the engine's input to the tail."""
        work = shape.works.get((tail, batch))
        if work is None:
            steps: list[Step] = [*shape.frames]
            if shape.origin != "device":
                steps.append(self._preprocess)
            steps.append(self._execute)
            if tail == "labels":
                assert shape.labels is not None
                steps += [self._clear_flag, self._upsample, shape.labels]
            elif tail == "output":
                steps.append(self._copy_output)
            maps = [placed.labels for placed in shape.layout.placed] if tail == "labels" else []
            height, width = shape.sizes[0]
            name = f"{len(shape.sizes)} x {height}x{width}"
            work = self._work((shape.origin, tail, batch, shape.sizes), name, steps, self._preprocess, batch, maps)
            shape.works[tail, batch] = work
        return work

    def _aim_labels(self, shape: Shape) -> None:
        """Gives the label maps, and the flag, pinned memory that nobody else reads: the last one's, unless a caller has it."""
        block = self._labels
        if block is None or block.loan is not None or block.size < shape.layout.label_bytes:
            self._labels = None
            if block is not None:
                self._share.labels.leave(block)
            block = self._labels = self._share.labels.take(shape.layout.label_bytes)
        assert shape.labels is not None
        assert shape.flag is not None
        shape.labels.set(block)
        shape.flag.set(block)

    def _preprocess(self) -> None:
        shape = self._loaded()
        for index, placed in enumerate(shape.layout.placed):
            if shape.origin == "device":
                address = self._frames[index].address
            else:
                assert self._memory.frames is not None
                address = self._memory.frames.address + placed.frame_start
            self._share.kernels.preprocess(self._stream, address, placed.tables, placed.tables_at, self._source.address, index)
        if shape.origin == "device":
            self._stream.record(self._frames_read)

    def _clear_flag(self) -> None:
        assert self._memory.labels is not None
        self._memory.labels.clear_first(FLAG_BYTES, self._stream)

    def _upsample(self) -> None:
        assert self._memory.labels is not None
        start = self._memory.labels.address
        for index, placed in enumerate(self._loaded().layout.placed):
            self._upsample_one(index, placed, start + placed.labels_start, start)

    def _upsample_one(self, index: int, placed: Placed, labels: int, flag: int) -> None:
        self._share.kernels.upsample_argmax(self._stream, self._target.address, placed.tables, placed.tables_at, labels, flag, index)

    def _make_device_labels(self, gpu: Any) -> list[DeviceLabels]:
        """Makes label maps in device memory of their own, for the caller. The flag is copied to the host as usual."""
        shape, device_labels = self._loaded(), []
        self._clear_flag()
        assert self._memory.labels is not None
        assert shape.flag is not None
        for index, placed in enumerate(shape.layout.placed):
            own = gpu.allocate(placed.tables.label_bytes, stream=self._stream)
            own.set_deallocation_stream(self._reader)
            self._upsample_one(index, placed, int(own.handle), self._memory.labels.address)
            device_labels.append(DeviceLabels(placed.tables.size, int(own.handle), own))
            self._share.health.watch(device_labels[-1])
        shape.flag()
        return device_labels

    def _set_reader(self, gpu: Any, stream: Any) -> None:
        """Sets the stream in whose order the memory of label maps is freed; see DeviceLabels."""
        if self._reader_source is not None and self._reader_source.stream is stream:
            return
        self._reader_source = lasting_stream(stream)
        self._reader = self._cuda.LEGACY_DEFAULT_STREAM if self._reader_source is None else gpu.create_stream(self._reader_source)

    def _forget(self) -> None:
        """Forgets every address in the memory of frames and labels, since it is about to move."""
        self._shapes.forget()
        if self._graphs is not None:
            self._graphs.drop()

    def _loaded(self) -> Shape:
        assert self._shape is not None, "begin comes after load"
        return self._shape

    # What is made of the output.

    def _finisher(self, kind: OutputKind, tail: Tail, device_labels: list[DeviceLabels] | None) -> Callable[[], Any]:
        if kind == "logits":
            return self._logits
        if tail == "output":
            return self._resized_labels
        return self._label_maps if device_labels is None else functools.partial(self._checked, device_labels)

    def _logits(self) -> Any:
        return self._target.array[: len(self._loaded().sizes)].astype(np.float32)

    def _resized_labels(self) -> list[LabelMap]:
        spec = self._share.engine.info.spec
        resize = functools.partial(
            resize_labels, input_size=spec.size, resize=spec.resize, corners=spec.resize_corners, classes=len(spec.classes)
        )
        return [resize(labels.copy(), size) for labels, size in zip(self._target.array, self._loaded().sizes, strict=False)]

    def _checked(self, device_labels: list[DeviceLabels]) -> list[DeviceLabels]:
        assert self._labels is not None
        check_flag(self._labels.first_word.value)
        return device_labels

    def _label_maps(self) -> list[LabelMap]:
        """The label maps in the memory that they were copied to; if callers hold too much of it, in a copy."""
        block, layout = self._labels, self._loaded().layout
        assert block is not None
        check_flag(block.first_word.value)
        lent = self._share.labels.lend(block, (layout.label_bytes,))
        if lent is None:
            return [block.array[placed.labels].reshape(placed.tables.size).copy() for placed in layout.placed]
        return [np.ndarray(placed.tables.size, np.uint8, lent, placed.labels_start) for placed in layout.placed]

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
