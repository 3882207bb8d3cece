"""HTTP connections as uvicorn serves them, with what it lacks: limits on their number, on slow headers and on slow readers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from .refusal import Refusal
from .settings import Limits

LOG = logging.getLogger("rtformer_deploy.serve")

_PHRASES = {400: "Bad Request", 408: "Request Timeout", 503: "Service Unavailable"}


class LimitedConnection(H11Protocol):
    """One connection. More than `limits.connections` get a 503; headers that take longer than `limits.transfer_s` a 408.

    A client that takes an answer so slowly that nothing moves for `limits.transfer_s` is cut off.
    """

    def __init__(self, limits: Limits, config: Config, server_state: ServerState, app_state: dict[str, Any], **more: Any) -> None:
        super().__init__(config, server_state, app_state, **more)
        self._limits = limits
        self._headers_due: asyncio.TimerHandle | None = None
        self._reading_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            self._refuse(Refusal(503, "The service has as many connections as it takes.", "Try again in 1 s.", {"Retry-After": "1"}))
        else:
            self._headers_due = self.loop.call_later(self._limits.transfer_s, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_headers()
        self._stop_reading()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        self._watch_headers()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_headers()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reading_due = self._reading_due or self.loop.call_later(self._limits.transfer_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_reading()

    def send_400_response(self, msg: str) -> None:
        self._refuse(Refusal(400, "This is not an HTTP request, or its headers are too long.", None))

    def _watch_headers(self) -> None:
        """The clock runs while a request has begun and its headers are not there yet."""
        begun = self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])
        if not begun or self.transport.is_closing():
            self._stop_headers()
        elif self._headers_due is None:
            self._headers_due = self.loop.call_later(self._limits.transfer_s, self._late)

    def _stop_headers(self) -> None:
        if self._headers_due is not None:
            self._headers_due.cancel()
            self._headers_due = None

    def _stop_reading(self) -> None:
        if self._reading_due is not None:
            self._reading_due.cancel()
            self._reading_due = None

    def _late(self) -> None:
        self._headers_due = None
        self._refuse(Refusal(408, "The request's headers did not arrive in time."))

    def _refuse(self, refusal: Refusal) -> None:
        """Answers without the application and closes; just closes if an answer is under way."""
        client = self.client[0] if self.client else "-"
        LOG.warning("%s: %d, %s", client, refusal.status, refusal.what)
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE) and not self.transport.is_closing():
            body = refusal.body()
            headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"} | refusal.headers
            lines = [f"HTTP/1.1 {refusal.status} {_PHRASES[refusal.status]}", *(f"{name}: {value}" for name, value in headers.items())]
            self.transport.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        self.transport.close()


def limited(limits: Limits) -> Callable[..., asyncio.Protocol]:
    """What uvicorn calls for each new connection."""

    def connection(config: Config, server_state: ServerState, app_state: dict[str, Any], **more: Any) -> asyncio.Protocol:
        return LimitedConnection(limits, config, server_state, app_state, **more)

    return connection
