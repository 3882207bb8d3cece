"""/v1/stream: a WebSocket that takes JPEG frames and answers the newest one it has, as label map or overlay.

The client sends one binary message a frame. For each frame that is answered it gets two messages: JSON text
{"frame", "skipped", "width", "height", "queue_ms", "engine_ms", "total_ms"} and the picture as a binary message. `frame` counts the
client's frames from 0, `skipped` how many before this one were left out since the last answer, because a newer one had come. A frame
that cannot be answered gives one text message {"frame", "error", "hint"}, and the stream goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from ..types import Frame
from .guard import STREAM_PROTOCOL, protocols
from .metrics import Timing
from .model import Model, Segmented
from .pictures import Wanted, decode, jpeg_overlay, labels_png
from .refusal import Refusal, refusal_of
from .service import Service

StreamOutput = Literal["labels", "overlay"]

_GOING_AWAY, _UNSUPPORTED = 1001, 1003  # close codes of RFC 6455


@dataclass(frozen=True, slots=True)
class _Incoming:
    number: int
    data: bytes


class Newest:
    """Holds one frame: putting another replaces it, taking waits for one."""

    def __init__(self) -> None:
        self._frame: _Incoming | None = None
        self._there = asyncio.Event()

    def put(self, frame: _Incoming) -> None:
        self._frame = frame
        self._there.set()

    async def take(self) -> _Incoming:
        await self._there.wait()
        self._there.clear()
        frame, self._frame = self._frame, None
        assert frame is not None, "there is a frame whenever the event is set"
        return frame


def router(service: Service) -> APIRouter:
    """The stream's addresses."""
    routes = APIRouter(prefix="/v1")

    @routes.websocket("/stream")
    async def unnamed(socket: WebSocket) -> None:
        await _stream(service, socket, None)

    @routes.websocket("/stream/{name}")
    async def named(socket: WebSocket, name: str) -> None:
        await _stream(service, socket, name)

    return routes


async def _stream(service: Service, socket: WebSocket, name: str | None) -> None:
    try:
        service.check_open()
        model = service.default_model("/v1/stream") if name is None else service.model(name)
        encode = _encoder(socket, model)
    except Refusal as refusal:
        await _deny(socket, refusal)
        return
    await socket.accept(STREAM_PROTOCOL if STREAM_PROTOCOL in protocols(socket.headers) else None)
    newest = Newest()
    tasks = [
        asyncio.create_task(_receive(socket, newest)),
        asyncio.create_task(_answer_frames(service, socket, model, newest, encode)),
        asyncio.create_task(service.stopped.wait()),
    ]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[-1].done():
            await socket.close(_GOING_AWAY, "The service is stopping.")
    finally:
        for task in tasks:
            task.cancel()
        for error in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(error, Exception) and not isinstance(error, WebSocketDisconnect | RuntimeError):
                raise error


async def _receive(socket: WebSocket, newest: Newest) -> None:
    """Keeps the newest frame until the client leaves; a text message ends the stream."""
    number = 0
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        data = message.get("bytes")
        if data is None:
            await socket.close(_UNSUPPORTED, "Send JPEG frames as binary messages.")
            return
        newest.put(_Incoming(number, data))
        number += 1


async def _answer_frames(service: Service, socket: WebSocket, model: Model, newest: Newest, encode: Callable[[Segmented], bytes]) -> None:
    last = -1
    while True:
        frame = await newest.take()
        began = time.perf_counter()
        facts: dict[str, Any] = {"frame": frame.number, "skipped": frame.number - last - 1}
        last = frame.number
        try:
            (content, size), timing = await model.answer(partial(_load, frame.data, service.limits.pixels), partial(_encode, encode))
        except Exception as error:
            await socket.send_json(facts | refusal_of(error).document())
            continue
        await socket.send_json(facts | _times(timing, time.perf_counter() - began) | {"height": size[0], "width": size[1]})
        await socket.send_bytes(content)


def _encoder(socket: WebSocket, model: Model) -> Callable[[Segmented], bytes]:
    """What makes a frame's picture, from the query. Raises a 400."""
    query = socket.query_params
    output = query.get("output", "labels")
    if output == "labels":
        return labels_png
    if output != "overlay":
        raise Refusal(400, "There is no such output.", f"There are: {', '.join(get_args(StreamOutput))}.")
    try:
        alpha = float(query.get("alpha", Wanted().alpha))
    except ValueError:
        alpha = -1.0
    if not 0 <= alpha <= 1:
        raise Refusal(400, "alpha is not a number from 0 to 1.")
    return partial(jpeg_overlay, spec=model.spec, alpha=alpha)


def _load(data: bytes, pixels: int) -> list[Frame]:
    return [decode(data, pixels)]


def _encode(encode: Callable[[Segmented], bytes], segmented: Sequence[Segmented]) -> tuple[bytes, tuple[int, int]]:
    (one,) = segmented
    return encode(one), (one.labels.shape[0], one.labels.shape[1])


def _times(timing: Timing, total_s: float) -> dict[str, float]:
    phases = timing.phases()
    times = {"queue_ms": phases["queue"], "engine_ms": phases["compute_infer"], "total_ms": total_s}
    return {name: round(1000 * seconds, 2) for name, seconds in times.items()}


async def _deny(socket: WebSocket, refusal: Refusal) -> None:
    """Refuses a WebSocket before it is accepted, with a status if the server can send one."""
    from fastapi import Response

    response = Response(refusal.body(), refusal.status, refusal.headers, media_type="application/json")
    with contextlib.suppress(WebSocketDisconnect):
        await socket.receive()
        await socket.send_denial_response(response)
