"""The service's log: one line a request, as text or as JSON. What requests say is escaped, so that it cannot forge lines."""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from datetime import UTC, datetime
from typing import Any, TextIO

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import shorten

REQUESTS = logging.getLogger("rtformer_deploy.serve.requests")
_ROOT = logging.getLogger("rtformer_deploy.serve")
_FACTS = "facts"  # the attribute of a log record that holds a request's facts
_MOST = 200  # characters of a path that are kept


def escaped(text: str) -> str:
    """Text on one line of printable ASCII: anything else as an escape, and a backslash doubled."""
    return text.encode("unicode_escape").decode("ascii")


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        facts: dict[str, Any] = getattr(record, _FACTS, {})
        words = " ".join(f"{name}={_word(value)}" for name, value in facts.items())
        message = escaped(record.getMessage())
        lines = [f"{_when(record)} {record.levelname} {' '.join(filter(None, (message, words)))}"]
        return "\n".join(lines + [f"    {escaped(line)}" for line in _trace(record)])


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, Any] = {"time": _when(record), "level": record.levelname, "message": record.getMessage()}
        document |= getattr(record, _FACTS, {})
        if record.exc_info:
            document["trace"] = _trace(record)
        return json.dumps(document)


def set_up(as_json: bool, stream: TextIO | None = None) -> None:
    """Sends the service's lines, and what uvicorn warns about, to stderr (or `stream`)."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Json() if as_json else _Text())
    for logger, level in ((_ROOT, logging.INFO), (logging.getLogger("uvicorn.error"), logging.WARNING)):
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False


class RequestLog:
    """Logs one line for each request, with its status, its time and its sizes; for a WebSocket when it ends."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        facts: dict[str, Any] = {"status": 101 if scope["type"] == "websocket" else 499, "in": 0, "out": 0}

        async def counted_receive() -> Message:
            message = await receive()
            facts["in"] += _size(message)
            return message

        async def counted_send(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                facts["status"] = message["status"]
            facts["out"] += _size(message)
            await send(message)

        try:
            await self._app(scope, counted_receive, counted_send)
        finally:
            _write(scope, facts | {"ms": round(1000 * (time.perf_counter() - began), 1)})


def _write(scope: Scope, facts: dict[str, Any]) -> None:
    client = scope.get("client")
    method = scope.get("method", "WEBSOCKET")
    path = scope.get("raw_path", b"").partition(b"?")[0].decode("latin-1") or scope["path"]
    about = {"client": client[0] if client else "-", "method": method, "path": shorten(path, _MOST)}
    REQUESTS.info("request", extra={_FACTS: about | facts})


def _size(message: Message) -> int:
    return len(message.get("body") or message.get("bytes") or message.get("text") or b"")


def _word(value: object) -> str:
    text = escaped(str(value))
    return f'"{text}"' if " " in text or not text else text


def _when(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _trace(record: logging.LogRecord) -> list[str]:
    if not record.exc_info:
        return []
    return "".join(traceback.format_exception(*record.exc_info)).rstrip().splitlines()
