"""A service for tests: a real uvicorn on a free port, in a thread, around tiny engines."""

from __future__ import annotations

import functools
import io
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import httpx
import numpy as np
from helpers import tiny_model, tiny_spec
from numpy.typing import NDArray
from PIL import Image

from rtformer_deploy.backends import build, open_engine
from rtformer_deploy.runtime.frame_runner import FrameRunner
from rtformer_deploy.serve.app import create_app
from rtformer_deploy.serve.engine_host import EngineHost
from rtformer_deploy.serve.server import Listen, Server, bind
from rtformer_deploy.serve.service import Service
from rtformer_deploy.serve.settings import Access, Limits
from rtformer_deploy.types import BuildOptions, Engine, Frame, Head, LabelMap, ModelSpec, Ticket

LARGEST = 4


@functools.cache
def tiny_engine(head: Head = "lowres") -> Engine:
    return build(tiny_model("batch", head), tiny_spec("batch", head), "onnxruntime", BuildOptions(batch=(1, 2, LARGEST), threads=1))


def open_tiny(head: Head = "lowres") -> FrameRunner:
    """A runner of a tiny network for batches of up to LARGEST frames."""
    return open_engine(tiny_engine(head), threads=1)


class SlowRunner:
    """Stands for a runner: waits `seconds` for each batch, or raises what `fails` gives; its label maps are 1 everywhere."""

    notes: tuple[str, ...] = ()
    threads = 1
    info = None

    def __init__(self, seconds: float = 0.0, *, max_batch: int = 1, fails: Callable[[], Exception | None] = lambda: None) -> None:
        self.seconds, self.max_batch, self.fails = seconds, max_batch, fails
        self.spec: ModelSpec = tiny_spec()
        self.batches: list[int] = []
        self.closed = False
        self._waiting: dict[int, Sequence[Frame]] = {}

    def frame(self, size: tuple[int, int]) -> Frame:
        return np.empty((*size, 3), np.uint8)

    def submit(self, frames: Sequence[Frame]) -> Ticket:
        self.batches.append(len(frames))
        self._waiting[len(self.batches)] = frames
        return Ticket(len(self.batches))

    def result(self, ticket: Ticket) -> list[LabelMap]:
        frames = self._waiting.pop(ticket.number)
        time.sleep(self.seconds)
        error = self.fails()
        if error is not None:
            raise error
        return [np.ones(frame.shape[:2], np.uint8) for frame in frames]

    def run(self, frames: Sequence[Frame]) -> list[LabelMap]:
        return self.result(self.submit(frames))

    def close(self) -> None:
        self.closed = True

    def as_runner(self) -> FrameRunner:
        return cast(FrameRunner, self)


@dataclass(frozen=True, slots=True)
class Served:
    """A running service: its address, its parts, a client for it."""

    url: str
    port: int
    service: Service
    server: Server
    client: httpx.Client
    thread: threading.Thread


@contextmanager
def served(
    *hosts: EngineHost,
    limits: Limits | None = None,
    access: Access | None = None,
    leave_s: float = 0.0,
    headers: dict[str, str] | None = None,
) -> Iterator[Served]:
    """Serves hosts, by default one tiny engine called "tiny", until the block ends; then it must end in order."""
    hosts = hosts or (EngineHost("tiny", open_tiny),)
    service = Service(hosts, limits or Limits(), access or Access(), codec_threads=2)
    server = Server(create_app(service), service, leave_s=leave_s)
    with bind(Listen(port=0)) as bound:
        port = bound.getsockname()[1]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            wait_until(lambda: server.started)
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=20, trust_env=False) as client:
                yield Served(f"http://127.0.0.1:{port}", port, service, server, client, thread)
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


def wait_until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Waits for a condition; fails after some seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


def jpeg(frame: Frame) -> bytes:
    """A frame as a JPEG file's bytes."""
    data = io.BytesIO()
    Image.fromarray(frame).save(data, "JPEG", quality=90)
    return data.getvalue()


def pixels(data: bytes) -> NDArray[Any]:
    """An image file's bytes -> its pixels."""
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image)
