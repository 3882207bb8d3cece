"""A lane: frames to label maps on a GPU, in one stream and, once it has proved itself, one CUDA graph.

Pinned frame -> copy -> preprocess kernel -> engine -> upsample-and-argmax kernel -> copy of one byte a pixel. Several lanes keep
several frames in flight.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import gpu as driver
from ..errors import EngineError, UsageError
from ..image import resize_labels
from ..types import LabelMap
from .base import Want
from .cuda_buffers import TensorBuffers
from .device_arrays import DeviceFrame, DeviceLabels, check_memory, check_stream, stream_handle
from .kernels import FLAG_BYTES, check_flag
from .lane_graphs import LaneGraphs
from .lane_memory import FrameMemory, Placed
from .lane_share import LaneShare
from .lane_work import LaneWork, Step
from .trt_plan import set_batch


class Lane:
    """A FrameSession around one execution context on a stream of its own; also `bench.DeviceTimed`.

    Everything a request needs lives as long as the lane: buffers and events are made once and freed in `close`, after the stream has
    come to rest; memory for frames grows with the largest submission. Any thread may use it, one at a time: each call makes the GPU's
    primary context current in its thread, and a caller's own context current again afterwards.

    `start` and `wait` run the engine alone, from `input` to its output in host memory. An error that breaks the GPU's context fails
    this lane and all that share it, at once, with EngineError.
    """

    def __init__(self, share: LaneShare) -> None:
        self._share = share
        self._cuda = share.cuda
        info = share.plan.info
        with share.current() as gpu:
            self._stream = gpu.create_stream()
            self._handle = int(self._stream.handle)
            self._begin, self._end = (gpu.create_event(self._cuda.EventOptions(timing_enabled=True)) for _ in range(2))
            self._done, self._read = (gpu.create_event() for _ in range(2))
            self._context = share.plan.create_context(share.config)
            self._source, self._target = (
                TensorBuffers(self._cuda, gpu, self._stream, (info.batch[2], *map(int, spec.shape[1:])), spec.dtype)
                for spec in (info.inputs[0], info.outputs[0])
            )
        self._memory = FrameMemory(self._cuda, self._stream, share.kernels, info.batch[2])
        self._graphs = LaneGraphs(self._stream, share.say) if share.capture else None
        self._batch = 0  # what shapes and addresses are set for
        self._frames: list[DeviceFrame] | None = None  # loaded frames that lie on the device
        self._placed: list[Placed] = []
        self._caller: Any = None
        self._busy = False  # something may be in flight that nobody waited for
        self._finish: Callable[[], Any] | None = None
        share.opened()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should hear about all lanes of the runner."""
        return tuple(self._share.notes)

    @property
    def input(self) -> NDArray[np.float32]:
        """The engine's input in pinned host memory, for `start`; it is made when it is first asked for."""
        if self._context is None:
            return np.empty((0, *map(int, self._share.plan.info.inputs[0].shape[1:])), np.float32)
        with self._at_work():
            return self._source.array

    # The engine alone.

    def start(self, batch: int) -> None:
        with self._at_work(), self._at_rest_if_refused():
            self._come_to_rest()
            self._finish = None
            self._bind(batch)
            work = self._work([self._execute], self._copy_input, batch)
            self._copy_input()
            graph = self._graph(("engine", batch), f"the engine at batch {batch}", work)
            self._stream.record(self._begin)
            self._launch(graph, work)
            self._stream.record(self._end)
            self._target.to_host(self._stream)
            self._stream.record(self._done)
            self._finish = lambda: self._target.array[:batch]

    def wait(self) -> NDArray[Any]:
        output: NDArray[Any] = self.take()
        return output

    def device_ms(self) -> float:
        """The GPU's time for the last `start` that was waited for, in ms, without the copies."""
        return float(self._end - self._begin)

    # Frames to label maps.

    def load(self, frames: Sequence[Any], stream: Any = None) -> None:
        """See FrameSession; frames are (H, W, 3) uint8 arrays or DeviceFrames. Raises UsageError for memory or streams of another
        GPU or context.
        """
        with self._at_work() as gpu:
            self._come_to_rest()
            self._finish, self._caller = None, None
            on_device = [frame for frame in frames if isinstance(frame, DeviceFrame)]
            self._frames = on_device or None
            if on_device:
                self._accept(on_device, stream)
            sizes = [(int(frame.shape[0]), int(frame.shape[1])) for frame in frames]
            labels = self._share.plan.info.spec.head != "labels"
            self._placed, moved = self._memory.place(gpu, sizes, on_host=not on_device, with_labels=labels)
            if moved and self._graphs is not None:
                self._graphs.drop()
            if not on_device:
                for frame, placed in zip(frames, self._placed, strict=True):
                    np.copyto(self._memory.host_frame(placed), frame)

    def begin(self, want: Want) -> None:
        with self._at_work() as gpu, self._at_rest_if_refused():
            labels_head = self._share.plan.info.spec.head == "labels"
            if labels_head and want == "device labels":
                raise UsageError("An engine that was built with --head labels gives its label maps in host memory.")
            self._finish = None
            batch = max(len(self._placed), self._share.plan.info.batch[0])
            self._bind(batch)
            if self._frames is not None:
                self._preprocess()
            tail = "device" if want == "device labels" else "output" if want == "logits" or labels_head else "labels"
            work = self._frame_work(tail, batch)
            sizes = tuple(placed.tables.size for placed in self._placed)
            key = ("frames" if self._frames is None else "input", tail, batch, sizes)
            self._launch(self._graph(key, f"{len(sizes)} x {sizes[0][0]}x{sizes[0][1]}", work), work)
            kept = self._device_labels(gpu) if tail == "device" else None
            self._stream.record(self._done)
            if self._caller is not None:
                self._caller.wait(self._read)  # the caller may write the next frame there, when this one has been read
            self._finish = self._finisher(want, tail, kept)

    def take(self) -> Any:
        if self._finish is None:
            raise EngineError("Nothing was started, so there is nothing to wait for.")
        with self._at_work():
            self._share.health.wait(self._done)
            self._busy = False
            self._frames = None  # the caller's memory is its own again
            return self._finish()

    def close(self) -> None:
        """Waits for what is in flight and frees everything; on a broken GPU it does neither and returns."""
        if self._context is None:
            return
        try:
            with self._at_work():
                self._busy = True
                self._come_to_rest()
                self._share.closing()
                self._give_up()
        except EngineError:
            if not self._share.health.dead:
                raise
            # freeing the memory of a broken context can wait for ever
            self._share.health.abandon(self.__dict__.copy())
            self._context, self._finish = None, None

    def _give_up(self) -> None:
        self._context, self._finish = None, None
        if self._graphs is not None:
            self._graphs.drop()
        self._memory.close()
        for buffers in (self._source, self._target):
            buffers.close(self._stream)
        for part in (self._begin, self._end, self._done, self._read, self._stream):
            part.close()

    # The steps.

    def _frame_work(self, tail: str, batch: int) -> LaneWork:
        """Frames or the engine's input to label maps, to the engine's output in host memory, or ("device") to its output alone."""
        steps: list[Step] = [self._copy_frames, self._preprocess] if self._frames is None else []
        steps.append(self._execute)
        if tail == "labels":
            steps += [self._clear_flag, self._upsample, self._copy_labels]
        elif tail == "output":
            steps.append(self._copy_output)
        return self._work(steps, self._preprocess, batch, frames=self._frames is None, labels=tail == "labels")

    def _work(self, steps: Sequence[Step], refeed: Step, batch: int, *, frames: bool = False, labels: bool = False) -> LaneWork:
        memory = self._memory
        return LaneWork(
            stream=self._stream,
            steps=steps,
            refeed=refeed,
            rest=self._rest,
            source=self._source,
            target=self._target,
            frames=memory.frames if frames else None,
            labels=memory.labels if labels else None,
            maps=[memory.host_labels(placed) for placed in self._placed] if labels else (),
            batch=batch,
        )

    def _copy_input(self) -> None:
        self._source.to_device(self._stream)

    def _copy_output(self) -> None:
        self._target.to_host(self._stream)

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
            self._stream.record(self._read)

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._handle):
            raise self._share.plan.failure("TensorRT could not start the engine")

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
        """Label maps into device memory of their own, which the caller gets; the flag comes to the host as always."""
        kept = []
        self._clear_flag()
        assert self._memory.labels is not None
        for index, placed in enumerate(self._placed):
            own = gpu.allocate(placed.tables.label_bytes, stream=self._stream)
            self._upsample_one(index, placed, int(own.handle), self._memory.labels.address)
            kept.append(DeviceLabels(placed.tables.size, int(own.handle), own))
        self._memory.labels.first_to_host(FLAG_BYTES, self._stream)
        return kept

    # What becomes of the output.

    def _finisher(self, want: Want, tail: str, kept: list[DeviceLabels] | None) -> Callable[[], Any]:
        if want == "logits":
            return lambda: self._target.array[: len(self._placed)].astype(np.float32)
        if tail == "output":
            return self._resized_labels
        return lambda: self._checked_labels(kept)

    def _resized_labels(self) -> list[LabelMap]:
        spec = self._share.plan.info.spec
        outputs = zip(self._target.array, self._placed, strict=False)
        return [resize_labels(labels.copy(), placed.tables.size, spec.size, spec.resize) for labels, placed in outputs]

    def _checked_labels(self, kept: list[DeviceLabels] | None) -> list[Any]:
        check_flag(self._memory.flag())
        return kept if kept is not None else [self._memory.host_labels(placed).copy() for placed in self._placed]

    # The stream and the GPU.

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[Any]:
        """The GPU, current; an error inside that broke it fails every lane."""
        with self._share.health.watching(self._probe), self._share.current() as gpu:
            yield gpu

    def _probe(self) -> None:
        with self._share.current():
            self._done.is_done  # noqa: B018

    @contextlib.contextmanager
    def _at_rest_if_refused(self) -> Iterator[None]:
        """Where only a part of a request could be enqueued, that part is waited for: it may read memory that is the caller's."""
        try:
            yield
        except Exception:
            with contextlib.suppress(Exception):  # the error that counts is the first
                self._rest()
            raise

    def _come_to_rest(self) -> None:
        """Before memory is written again: nothing is in flight, unless a request was interrupted or refused half way."""
        if self._busy:
            self._rest()
        self._busy = True

    def _rest(self) -> None:
        self._stream.record(self._done)
        self._share.health.wait(self._done)

    def _graph(self, key: tuple[Any, ...], name: str, work: LaneWork) -> Any:
        return None if self._graphs is None else self._graphs.prepare(key, name, work)

    def _launch(self, graph: Any, work: LaneWork) -> None:
        if graph is None:
            work.enqueue()
        else:
            graph.launch(self._stream)

    def _bind(self, batch: int) -> None:
        """Sets the shapes, then the addresses, for a batch; nothing is in flight."""
        if batch == self._batch:
            return
        self._batch = 0
        plan = self._share.plan
        set_batch(self._context, plan.info, batch, plan)
        for spec, buffers in ((plan.info.inputs[0], self._source), (plan.info.outputs[0], self._target)):
            if not self._context.set_tensor_address(spec.name, buffers.address):
                raise plan.failure(f"TensorRT does not take the memory for {spec.name}")
            buffers.use_images(batch)
        self._batch = batch

    def _accept(self, frames: Sequence[DeviceFrame], stream: Any) -> None:
        """Checks a caller's frames and lets the lane's stream wait for what makes them."""
        context = driver.current_context()
        for index, frame in enumerate(frames):
            check_memory(frame, index, self._share.device, context)
        named = {frame.stream for frame in frames if frame.stream is not None} if stream is None else {stream_handle(stream)}
        for handle in named:
            check_stream(handle, context)
            caller = self._cuda.Stream.from_handle(handle)
            self._stream.wait(caller)
            self._caller = caller
