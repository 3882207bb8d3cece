"""From an application to a process that serves it: the socket, TLS, signals, and leaving in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from ..errors import EngineError, OutputError, UsageError, first_line
from ..files import check_readable
from .connections import limited
from .service import Service
from .settings import Limits

LOG = logging.getLogger("rtformer_deploy.serve")

_BACKLOG = 512
_FORCED = 1  # the exit code of an end that waits for nothing
_FLUSH_S = 5.0  # for answers that are being sent when everything inside is answered


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen, and the certificate to show (None: no TLS). The key may be in the certificate's file."""

    host: str = "127.0.0.1"
    port: int = 8000
    certfile: Path | None = None
    keyfile: Path | None = None


def bind(listen: Listen) -> socket.socket:
    """The address, taken but not listening yet, so that a port in use is known before an engine is opened. Raises OutputError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except OSError:
            bound.close()
            raise
    except (OSError, UnicodeError) as error:
        reason = "it is no host's name" if isinstance(error, UnicodeError) else getattr(error, "strerror", None) or first_line(error)
        raise OutputError(f"Cannot listen on {listen.host} port {listen.port}: {reason}.", "Choose another --host or --port.") from error
    return bound


def tls(listen: Listen) -> ssl.SSLContext | None:
    """The certificate and its key, read and compared; None without a certificate. Raises UsageError, OutputError."""
    if listen.certfile is None:
        if listen.keyfile is not None:
            raise UsageError("--keyfile is for a certificate.", "Give --certfile too.")
        return None
    for path in filter(None, (listen.certfile, listen.keyfile)):
        check_readable(path, OutputError, "a certificate or key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(listen.certfile, listen.keyfile, password=_no_password)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        names = " and ".join(str(path) for path in (listen.certfile, listen.keyfile) if path is not None)
        hint = "Both are PEM files, without a password, and the key is the certificate's own."
        raise OutputError(f"{names} cannot be used for TLS: {first_line(error)}.", hint) from error
    return context


def url(listen: Listen, port: int) -> str:
    """The address that a browser takes."""
    host = f"[{listen.host}]" if ":" in listen.host else listen.host
    return f"{'https' if listen.certfile else 'http'}://{host}:{port}"


def run(server: Server, bound: socket.socket) -> None:
    """Serves until a signal. Raises KeyboardInterrupt after Ctrl-C, EngineError if every engine is down; returns after SIGTERM."""
    server.run(sockets=[bound])
    if server.force_exit or server.service.hung:
        LOG.critical("The service ends without waiting for its engines.")
        logging.shutdown()
        os._exit(_FORCED)  # a thread in an engine that hangs would keep the process alive
    if server.interrupted:
        raise KeyboardInterrupt
    if server.service.dead:
        raise EngineError("Every engine is down, so the service has ended.", "Its log says why.")


class Server(uvicorn.Server):
    """uvicorn's server, which leaves in order.

    After SIGTERM the service is not ready any more; `leave_s` later it refuses new requests, answers those that are inside, and ends. After
    Ctrl-C it does not wait. A second signal ends it at once. `context` is for TLS; `say_started` is called once it listens.
    """

    def __init__(
        self,
        app: ASGIApp,
        service: Service,
        context: ssl.SSLContext | None = None,
        *,
        leave_s: float = 0.0,
        say_started: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(_config(app, service.limits, context))
        self.interrupted = False
        self.service = service
        self._leave_s, self._say_started = leave_s, say_started
        self._leaving: asyncio.Task[None] | None = None
        self._asked: int | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():  # only the main thread gets signals
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._asked is not None:
            self.should_exit = self.force_exit = True
        self._asked = sig
        self.interrupted = self.interrupted or sig == signal.SIGINT

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._say_started()

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second."""
        if self._asked is not None and self._leaving is None:
            self._leaving = asyncio.create_task(self._leave(0.0 if self.interrupted else self._leave_s))
        if self.service.dead and self._leaving is None:
            LOG.critical("Every engine is down; the service ends.")
            return True
        return await super().on_tick(counter)

    async def _leave(self, wait_s: float) -> None:
        self.service.leave()
        LOG.info("Stopping: not ready any more; new requests are refused in %g s.", wait_s)
        await asyncio.sleep(wait_s)
        self.service.stop()
        with contextlib.suppress(TimeoutError):
            await self.service.drained()
        LOG.info("Stopping: everything inside is answered.")
        self.should_exit = True


def _config(app: ASGIApp, limits: Limits, context: ssl.SSLContext | None) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=limited(limits),  # type: ignore[arg-type]  # uvicorn calls whatever it is given
        ws="websockets-sansio",
        ws_max_size=limits.body,
        ws_ping_interval=limits.transfer_s / 2,  # a client that stalls, also within a message, does not answer a ping
        ws_ping_timeout=limits.transfer_s / 2,
        ws_per_message_deflate=False,  # pictures are compressed already, and a small message cannot grow
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=max(5, int(limits.transfer_s)),
        timeout_graceful_shutdown=int(_FLUSH_S),
        ssl_context_factory=None if context is None else lambda config, default: context,
    )


def _no_password() -> str:
    raise ValueError("it needs a password")
