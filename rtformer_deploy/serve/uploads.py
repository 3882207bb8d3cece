"""Limits on uploads: their size, their time, and how much all of them together may hold. Pure ASGI."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .refusal import Refusal
from .responses import send_refusal
from .settings import MIB, Limits

_LINGER_S = 1.0  # how long what a client still sends after a refusal is read and dropped, so that it gets to read the refusal
_RETRY_S = "1"


class Uploads:
    """Passes requests on. One whose body is too large, too slow or compressed gets 413, 408 or 415, wherever the body is read.

    Together all bodies hold at most `limits.bodies` bytes; a body beyond that gets 503. After a refusal the rest of a body is dropped for a
    short while and the connection closed.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app, self._limits = app, limits
        self._held = 0  # bytes of all bodies that were read and whose requests are not answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        empty = "transfer-encoding" not in headers and headers.get("content-length", "0") == "0"
        upload = _Upload(receive, send, asyncio.get_running_loop().time() + self._limits.transfer_s, finished=empty)
        try:
            refusal = self._refuse(headers)
            if refusal is not None:
                await send_refusal(refusal, scope, receive, upload.send)
            else:
                await self._app(scope, lambda: self._receive(upload), upload.send)
        finally:
            self._held -= upload.held

    def _refuse(self, headers: Headers) -> Refusal | None:
        """What the headers alone say about the body."""
        coding = headers.get("content-encoding", "identity").strip().lower()
        if coding not in ("", "identity"):
            hint = "Send the body as it is; pictures are compressed already."
            return Refusal(415, "Compressed bodies are not read.", hint, {"Accept-Encoding": "identity"})
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._limits.body:
            return self._too_large()
        return None

    async def _receive(self, upload: _Upload) -> Message:
        message = await upload.receive()
        upload.held += (size := len(message.get("body", b"")))
        self._held += size
        if upload.held > self._limits.body:
            raise self._too_large()
        if self._held > self._limits.bodies:
            raise Refusal(503, "The service holds as many uploads as it can.", f"Try again in {_RETRY_S} s.", {"Retry-After": _RETRY_S})
        return message

    def _too_large(self) -> Refusal:
        return Refusal(413, f"The body is larger than {self._limits.body / MIB:g} MiB.", "Send a smaller picture.")


@dataclass(eq=False, slots=True)
class _Upload:
    """One request's channels: knows whether its body was read to the end, until when it has to be, and how much of it is held."""

    _receive: Receive
    _send: Send
    deadline: float
    finished: bool
    held: int = 0

    async def receive(self) -> Message:
        """The next message. Raises a 408 if the body is not there in time; once it is, waits for the client to leave."""
        if self.finished:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self.deadline):
                message = await self._receive()
        except TimeoutError as error:
            raise Refusal(408, "The body did not arrive in time.", "Send it faster, or raise --transfer-timeout.") from error
        self.finished = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Sends a message. An answer before the body's end closes the connection, once the client has had time to read the answer."""
        if message["type"] == "http.response.start" and not self.finished:
            MutableHeaders(raw=message.setdefault("headers", []))["Connection"] = "close"
        if message["type"] == "http.response.body" and not message.get("more_body", False) and not self.finished:
            await self._send({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def _linger(self) -> None:
        try:
            async with asyncio.timeout(_LINGER_S):
                while not self.finished:
                    message = await self._receive()
                    self.finished = message["type"] != "http.request" or not message.get("more_body", False)
        except TimeoutError:
            self.finished = True
