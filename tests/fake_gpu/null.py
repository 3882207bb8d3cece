"""A GPU that runs in NumPy, for tests: cuda.core and the driver as far as lanes use them, with the rules that the real ones have.

Streams are lazy: what is enqueued runs only when somebody waits for it, and complains where memory that it needs was given up meanwhile.
A context is current in one thread only. While a stream is captured, its thread may neither allocate nor wait; a graph keeps addresses;
one that was captured with another device current is empty and replays nothing, without an error. After an error every call fails.
Kernels are done by `image`, so label maps are those of the CPU. `NullGpu.journal` keeps the order of calls.
"""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
from null_kernels import KERNELS
from numpy.typing import NDArray

from rtformer_deploy.types import ModelSpec

Op = Callable[[], None]
PRIMARY = 100  # the handle of device 0's primary context


class NullCudaError(Exception):
    """What cuda.core raises."""


class NullGpu:
    """What all fake objects share. `cuda` stands for the module cuda.core, `driver` for the functions of `gpu` that ask the driver.

    `graph_fault` "empty" makes graphs that do nothing, "refused" refuses capture. `break_at` breaks the context at the operation of that
    number from now on; `lost` stops all work without an error. `spec` is the model whose frames the kernels take.
    """

    def __init__(self, spec: ModelSpec | None = None) -> None:
        self.spec = spec
        self.journal: list[str] = []
        self.streams: dict[int, Stream] = {}
        self.events: list[Event] = []
        self.memory: weakref.WeakValueDictionary[int, Buffer] = weakref.WeakValueDictionary()
        self.foreign: dict[int, tuple[int, int]] = {}  # callers' memory and streams: the device and the context
        self.lock = threading.RLock()
        self.here = threading.local()
        self.graph_fault: Literal["empty", "refused"] | None = None
        self.break_at: int | None = None
        self.lost = False
        self.broken: str | None = None
        self.cuda = SimpleNamespace(
            Device=lambda index: Device(self, index),
            EventOptions=lambda **options: options,
            LegacyPinnedMemoryResource=lambda: SimpleNamespace(allocate=lambda size: Buffer(self, "pinned", size)),
            Buffer=SimpleNamespace(from_handle=lambda address, size, owner: Buffer(self, "part", size, owner)),
            Stream=SimpleNamespace(from_handle=lambda handle: self.streams[handle]),
            ProgramOptions=lambda **options: options,
            Program=lambda *source: SimpleNamespace(compile=lambda kind: SimpleNamespace(get_kernel=str), close=lambda: None),
            LEGACY_DEFAULT_STREAM="legacy",
            LaunchConfig=lambda grid, block: None,
            launch=self._launch,
        )
        self.driver: dict[str, Callable[..., Any]] = {
            "current_context": lambda: getattr(self.here, "context", 0),
            "set_context": lambda context: setattr(self.here, "context", context),
            "stream_context": lambda handle: self.foreign.get(handle, (0, PRIMARY + self.streams[handle].device))[1],
            "memory_owner": self._memory_owner,
        }

    def call(self, *, waits: bool = False) -> int:
        """Every call into CUDA begins here: the device whose context is current. Raises where the context is broken or captures."""
        context = getattr(self.here, "context", 0)
        assert context >= PRIMARY, "no primary context is current in this thread"
        if self.broken is not None:
            raise NullCudaError(self.broken)
        capturing: Stream | None = getattr(self.here, "capturing", None)
        if waits and capturing is not None:
            capturing.invalid = True
            raise NullCudaError("CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED: operation not permitted when stream is capturing")
        return int(context) - PRIMARY

    def ran(self) -> None:
        """An operation is about to run."""
        if self.break_at is not None:
            self.break_at -= 1
            if self.break_at < 0:
                self.broken = "CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered"
        if self.broken is not None:
            raise NullCudaError(self.broken)

    def view(self, address: int, size: int) -> NDArray[np.uint8]:
        """The memory at an address, as a kernel sees it."""
        for start, buffer in list(self.memory.items()):
            if start <= address and address + size <= start + buffer.size:
                assert buffer.kind == "device", "a kernel got host memory"
                return buffer.bytes[address - start :][:size]
        raise AssertionError("memory was freed while a kernel was to use it")

    def count(self, start: str) -> int:
        return sum(line.startswith(start) for line in self.journal)

    def calls(self, work: Callable[[], object]) -> Counter[str]:
        """How often `work` makes which call."""
        before = len(self.journal)
        work()
        return Counter(self.journal[before:])

    def idle(self) -> bool:
        """Whether everything that was enqueued has run."""
        return not any(stream.queue for stream in self.streams.values())

    def live(self) -> int:
        """The bytes of all memory that was not freed."""
        return sum(buffer.size for buffer in list(self.memory.values()))

    def caller_array(self, frame: NDArray[Any], device: int = 0, context: int | None = None) -> Any:
        """A frame in device memory as a caller's library shows it."""
        buffer = Buffer(self, "device", frame.nbytes, called=False)
        buffer.bytes[:] = np.ascontiguousarray(frame).reshape(-1).view(np.uint8)
        self.foreign[buffer.handle] = (device, PRIMARY + device if context is None else context)
        told = {
            "shape": frame.shape,
            "typestr": frame.dtype.str,
            "data": (buffer.handle, False),
            "version": 3,
            "strides": None,
            "stream": None,
        }
        return SimpleNamespace(buffer=buffer, __cuda_array_interface__=told)

    def read(self, shown: Any) -> NDArray[np.uint8]:
        """What an object with `__cuda_array_interface__` shows."""
        told = shown.__cuda_array_interface__
        return self.view(told["data"][0], int(np.prod(told["shape"]))).reshape(told["shape"]).copy()

    def _launch(self, stream: Stream, config: None, kernel: str, *arguments: Any) -> None:
        self.call()
        self.journal.append(f"launch {kernel.rpartition('_')[0]}")
        assert self.spec is not None
        stream.enqueue(lambda: KERNELS[kernel](self.view, self.spec, arguments))

    def _memory_owner(self, address: int) -> tuple[int, int | None] | None:
        return self.foreign.get(address) or ((0, PRIMARY) if address in self.memory else None)


class Device:
    compute_capability = SimpleNamespace(major=8, minor=6)

    def __init__(self, gpu: NullGpu, index: int) -> None:
        self.gpu, self.index = gpu, index

    def set_current(self) -> None:
        self.gpu.here.context = PRIMARY + self.index

    def create_stream(self, borrowed: Any = None) -> Stream:
        assert self.gpu.call() == self.index
        if borrowed is not None:
            return self.gpu.streams[borrowed.__cuda_stream__()[1]]
        return Stream(self.gpu, self.index)

    def create_event(self, options: dict[str, bool] | None = None) -> Event:
        assert self.gpu.call() == self.index
        event = Event(self.gpu, bool(options and options.get("timing_enabled")))
        self.gpu.events.append(event)
        return event

    def allocate(self, size: int, *, stream: Stream) -> Buffer:
        assert isinstance(stream, Stream)
        assert self.gpu.call() == self.index
        return Buffer(self.gpu, "device", size)


class Stream:
    def __init__(self, gpu: NullGpu, device: int) -> None:
        self.gpu, self.device = gpu, device
        with gpu.lock:
            self.handle = 1000 + len(gpu.streams)
            gpu.streams[self.handle] = self
        self.queue: list[Op] = []
        self.captured: list[Op] | None = None
        self.invalid = False
        self.clock = 0.0
        self.closed = False

    def enqueue(self, work: Op) -> None:
        assert not self.closed
        self.gpu.call()
        (self.queue if self.captured is None else self.captured).append(work)

    def record(self, event: Event) -> Event:
        assert self.captured is None, "an event in a capture is no event to wait for"
        event.done, event.stream = False, self
        event.records += 1
        mine = event.records

        def reached() -> None:
            if event.records == mine:  # the last record counts
                event.done, event.time = True, self.clock

        self.enqueue(reached)
        return event

    def wait(self, other: Event | Stream) -> None:
        event = other.record(Event(self.gpu, False)) if isinstance(other, Stream) else other
        self.gpu.journal.append("wait for the caller" if isinstance(other, Stream) else "the caller waits")

        def until() -> None:
            while not event.done and event.stream is not None and not self.gpu.lost:
                event.stream.step()

        self.enqueue(until)

    def step(self) -> None:
        """Runs the oldest operation."""
        with self.gpu.lock:
            if self.queue and not self.gpu.lost:
                self.gpu.ran()
                self.queue.pop(0)()

    def sync(self) -> None:
        self.gpu.call(waits=True)
        while self.queue:
            self.step()

    def create_graph_builder(self) -> GraphBuilder:
        return GraphBuilder(self)

    def close(self) -> None:
        assert not self.queue, "a stream is closed while work is in flight"
        self.gpu.journal.append("close stream")
        self.closed = True


class Event:
    def __init__(self, gpu: NullGpu, timed: bool) -> None:
        self.gpu, self.timed, self.done, self.time = gpu, timed, True, 0.0
        self.stream: Stream | None = None
        self.records = 0
        self.closed = False

    @property
    def is_done(self) -> bool:
        """Asking lets one more operation run."""
        self.gpu.call(waits=True)
        assert not self.closed
        if not self.done and self.stream is not None:
            self.stream.step()
        return self.done

    def __sub__(self, other: Event) -> float:
        assert self.timed
        assert other.timed
        assert self.done
        return self.time - other.time

    def close(self) -> None:
        self.closed = True


class GraphBuilder:
    def __init__(self, stream: Stream) -> None:
        self.stream, self.ops = stream, list[Op]()

    def begin_building(self, mode: str) -> None:
        gpu = self.stream.gpu
        assert mode == "thread_local", "other threads may allocate meanwhile"
        self.strange = gpu.call() != self.stream.device
        gpu.journal.append("capture")
        self.stream.captured, self.stream.invalid = self.ops, False
        gpu.here.capturing = self.stream

    def end_building(self) -> GraphBuilder:
        gpu = self.stream.gpu
        self.stream.captured, gpu.here.capturing = None, None
        if self.stream.invalid or gpu.graph_fault == "refused":
            raise NullCudaError("CUDA_ERROR_STREAM_CAPTURE_INVALIDATED: operation failed due to a previous error during capture")
        return self

    def complete(self) -> Graph:
        return Graph([] if self.strange or self.stream.gpu.graph_fault == "empty" else self.ops, self.stream.gpu)

    def close(self) -> None:
        assert self.stream.captured is None, "a capture was not ended"


class Graph:
    def __init__(self, ops: Sequence[Op], gpu: NullGpu) -> None:
        self.ops, self.gpu, self.closed = tuple(ops), gpu, False

    def launch(self, stream: Stream) -> None:
        assert not self.closed
        self.gpu.journal.append("replay")
        for op in self.ops:
            stream.enqueue(op)

    def close(self) -> None:
        assert not self.closed
        self.gpu.journal.append("close graph")
        self.closed = True


class Buffer:
    def __init__(self, gpu: NullGpu, kind: str, size: int, owner: Buffer | None = None, *, called: bool = True) -> None:
        if called:
            gpu.call(waits=owner is None)
        self.gpu, self.kind, self.size, self.owner = gpu, kind, size, owner
        self.bytes: NDArray[np.uint8] = np.full(size, 0xAB, np.uint8) if owner is None else owner.bytes[:size]
        self.handle = self.bytes.ctypes.data
        self._closed = False
        if owner is None:
            with gpu.lock:
                gpu.memory[self.handle] = self
            gpu.journal.append(f"allocate {kind}")

    @property
    def closed(self) -> bool:
        return self._closed or (self.owner is not None and self.owner.closed)

    @property
    def kind_of_memory(self) -> str:
        return self.kind if self.owner is None else self.owner.kind

    def copy_from(self, source: Buffer, *, stream: Stream) -> None:
        assert self.size == source.size, "copies want equal sizes"
        assert not self.closed
        assert not source.closed
        self.gpu.journal.append(f"copy {source.kind_of_memory} to {self.kind_of_memory}")

        def copy() -> None:
            assert not self.closed, "memory was freed while a copy was in flight"
            assert not source.closed, "memory was freed while a copy was in flight"
            self.bytes[:] = source.bytes

        stream.enqueue(copy)

    def copy_to(self, target: Buffer, *, stream: Stream) -> None:
        target.copy_from(self, stream=stream)

    def fill(self, value: int, *, stream: Stream) -> None:
        assert self.kind_of_memory == "device"
        self.gpu.journal.append("fill")

        def fill() -> None:
            assert not self.closed, "memory was freed while it was to be filled"
            self.bytes[:] = value

        stream.enqueue(fill)

    def set_deallocation_stream(self, stream: Stream | str) -> None:
        assert self.kind == "device"

    def close(self, stream: Stream) -> None:
        assert not stream.closed
        assert not self._closed, "memory is freed twice"
        self.gpu.call(waits=True)
        self.gpu.journal.append(f"free {self.kind}")
        self._closed = True
        with self.gpu.lock:
            del self.gpu.memory[self.handle]
