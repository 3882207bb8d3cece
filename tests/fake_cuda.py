"""A GPU and a TensorRT that run in NumPy, for tests of how the runner uses the real ones.

Streams are lazy: what is enqueued runs only when somebody waits for it, and complains if the memory or the context it needs was given
up meanwhile. A CUDA context is current in one thread only, as with the real thing. `Machine.journal` keeps the order of calls.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHANNELS = 5


class Machine:
    """What all fake objects share; `plan` is what the fake TensorRT says of any plan it is given."""

    def __init__(self) -> None:
        self.journal: list[str] = []
        self.streams: dict[int, Stream] = {}
        self.memory: dict[int, Buffer] = {}
        self.current = threading.local()
        self.io = {"input": "FLOAT", "logits": "FLOAT"}
        self.layers: list[Any] = []
        self.layers_with_context: list[Any] | None = None
        self.validity: tuple[str, int] | None = None
        self.opens = True
        self.runs = True
        self.takes_shape = True
        self.takes_address = True
        self.contexts_left = 100
        self.logger: Any = None
        self.cuda = SimpleNamespace(
            Device=lambda index: Device(self, index),
            EventOptions=lambda **options: options,
            LegacyPinnedMemoryResource=lambda: SimpleNamespace(allocate=lambda size: Buffer(self, "pinned", size)),
            Buffer=SimpleNamespace(from_handle=lambda address, size, owner: Buffer(self, "part", size, owner)),
        )

    def device(self) -> int:
        """The device whose context is current in this thread."""
        index: int | None = getattr(self.current, "index", None)
        assert index is not None, "no CUDA context is current in this thread"
        return index

    def count(self, start: str) -> int:
        return sum(line.startswith(start) for line in self.journal)


class Device:
    def __init__(self, machine: Machine, index: int) -> None:
        self.machine, self.index = machine, index

    def set_current(self) -> None:
        self.machine.current.index = self.index

    def create_stream(self) -> Stream:
        assert self.machine.device() == self.index
        return Stream(self.machine)

    def create_event(self, options: dict[str, bool] | None = None) -> Event:
        assert self.machine.device() == self.index
        return Event(bool(options and options.get("timing_enabled")))

    def allocate(self, size: int, *, stream: Stream) -> Buffer:
        assert isinstance(stream, Stream)
        assert self.machine.device() == self.index
        return Buffer(self.machine, "device", size)


class Stream:
    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.handle = 1000 + len(machine.streams)
        machine.streams[self.handle] = self
        self.queue: list[Callable[[], None]] = []
        self.clock = 0.0
        self.closed = False

    def enqueue(self, work: Callable[[], None]) -> None:
        assert not self.closed
        self.machine.device()
        self.queue.append(work)

    def record(self, event: Event) -> Event:
        event.done = False
        event.stream = self

        def reached() -> None:
            event.done, event.time = True, self.clock

        self.enqueue(reached)
        return event

    def sync(self) -> None:
        while self.queue:
            self.queue.pop(0)()

    def close(self) -> None:
        assert not self.queue, "a stream is closed while work is in flight"
        self.machine.journal.append("close stream")
        self.closed = True


class Event:
    def __init__(self, timed: bool) -> None:
        self.timed, self.done, self.time = timed, False, 0.0
        self.stream: Stream | None = None
        self.closed = False

    def sync(self) -> None:
        assert self.stream is not None
        self.stream.machine.device()
        while not self.done:
            self.stream.queue.pop(0)()

    def __sub__(self, other: Event) -> float:
        assert self.timed
        assert other.timed
        assert self.done
        return self.time - other.time

    def close(self) -> None:
        self.closed = True


class Buffer:
    def __init__(self, machine: Machine, kind: str, size: int, owner: Buffer | None = None) -> None:
        machine.device()
        self.machine, self.kind, self.size, self.owner = machine, kind, size, owner
        self.bytes: NDArray[np.uint8] = np.full(size, 0xAB, np.uint8) if owner is None else owner.bytes[:size]
        self.handle = self.bytes.ctypes.data
        self._closed = False
        if owner is None:
            machine.memory[self.handle] = self
            machine.journal.append(f"allocate {kind}")

    @property
    def closed(self) -> bool:
        return self._closed or (self.owner is not None and self.owner.closed)

    def copy_from(self, source: Buffer, *, stream: Stream) -> None:
        assert self.size == source.size, "copies want equal sizes"
        assert not self.closed
        assert not source.closed
        self.machine.journal.append(f"copy {source.kind_of_memory} to {self.kind_of_memory}")

        def copy() -> None:
            assert not self.closed, "memory was freed while a copy was in flight"
            assert not source.closed, "memory was freed while a copy was in flight"
            self.bytes[:] = source.bytes

        stream.enqueue(copy)

    def copy_to(self, target: Buffer, *, stream: Stream) -> None:
        target.copy_from(self, stream=stream)

    @property
    def kind_of_memory(self) -> str:
        return self.kind if self.owner is None else self.owner.kind

    def close(self, stream: Stream) -> None:
        assert not stream.closed
        assert not self._closed, "memory is freed twice"
        self.machine.journal.append(f"free {self.kind}")
        self._closed = True


def network(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """The engine: (N, 3, H, W) -> logits (N, 5, H / 8, W / 8)."""
    small = images[:, :, ::8, ::8]
    weights = np.arange(1, CHANNELS * 3 + 1, dtype=np.float32).reshape(CHANNELS, 3) % 4 - 1
    logits: NDArray[np.float32] = np.einsum("kc,nchw->nkhw", weights, small).astype(np.float32)
    return logits


class Context:
    def __init__(self, machine: Machine) -> None:
        self.machine, self.created_on = machine, machine.device()
        self.shape: tuple[int, ...] | None = None
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == "input"
        self.machine.journal.append(f"shape {shape[0]}")
        self.shape = shape
        return self.machine.takes_shape

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert name in self.machine.io
        assert self.machine.memory[address].kind == "device"
        self.machine.journal.append(f"address {name}")
        self.addresses[name] = address
        return self.machine.takes_address

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert self.machine.device() == self.created_on, "another GPU's context is current"
        assert self.shape is not None
        assert self.addresses.keys() == self.machine.io.keys()
        shape, source, target = self.shape, *(self.machine.memory[self.addresses[name]] for name in self.machine.io)
        self.machine.journal.append(f"execute {shape[0]}")
        if not self.machine.runs:
            self.machine.logger.log(2, "the kernel went missing")
            return False
        stream = self.machine.streams[stream_handle]

        def run() -> None:
            assert not source.closed, "memory was freed while the engine was running"
            assert not target.closed, "memory was freed while the engine was running"
            size = int(np.prod(shape)) * 4
            output = network(source.bytes[:size].view(np.float32).reshape(shape))
            if "labels" in self.machine.io:
                output = output.repeat(8, 2).repeat(8, 3).argmax(1).astype(np.uint8)  # type: ignore[assignment]
            target.bytes[: output.nbytes] = output.reshape(-1).view(np.uint8)
            stream.clock += 1.5 * shape[0]

        stream.enqueue(run)
        return True

    def __del__(self) -> None:
        self.machine.journal.append("destroy context")


class CudaEngine:
    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.num_io_tensors = len(machine.io)

    def get_tensor_name(self, index: int) -> str:
        return list(self.machine.io)[index]

    def get_tensor_dtype(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(name=self.machine.io[name])

    def create_execution_context(self) -> Context | None:
        self.machine.contexts_left -= 1
        return Context(self.machine) if self.machine.contexts_left >= 0 else None

    def create_engine_inspector(self) -> Inspector:
        return Inspector(self.machine)


class Inspector:
    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.execution_context: Context | None = None

    def get_engine_information(self, layer_format: str) -> str:
        assert layer_format == "json"
        told = self.machine.layers if self.execution_context is None else self.machine.layers_with_context
        if self.execution_context is not None:
            assert self.execution_context.shape is not None
        return json.dumps({"Layers": told or [], "Bindings": list(self.machine.io)})


class Runtime:
    def __init__(self, machine: Machine, logger: Any) -> None:
        self.machine = machine
        machine.logger = logger
        self.engine_host_code_allowed = False
        if machine.validity is not None:
            name, reasons = machine.validity
            self.get_engine_validity = lambda plan: (SimpleNamespace(name=name), reasons)

    def deserialize_cuda_engine(self, plan: bytes) -> CudaEngine | None:
        self.machine.device()
        self.machine.journal.append(f"deserialize {plan.decode()} host code {self.engine_host_code_allowed}")
        if self.machine.opens:
            return CudaEngine(self.machine)
        self.machine.logger.log(2, "Serialization assertion failed")
        return None


def tensorrt(machine: Machine) -> SimpleNamespace:
    """The module."""

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING = 1, 2, 3

    return SimpleNamespace(
        __version__="10.3.0",
        ILogger=ILogger,
        Runtime=lambda logger: Runtime(machine, logger),
        LayerInformationFormat=SimpleNamespace(JSON="json"),
    )
