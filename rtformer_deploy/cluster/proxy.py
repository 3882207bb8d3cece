"""What Ray Serve's proxies answer for a copy of the service that is gone. Serve loads it into each proxy by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..serve.refusal import Refusal
from ..serve.responses import send_refusal

if TYPE_CHECKING:
    from starlette.middleware import Middleware

#: The variable that Serve reads, and what it is set to.
VARIABLE, CALLBACK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", f"{__name__}:middlewares"


def middlewares() -> list[Middleware]:
    """What Serve puts around its proxy."""
    from starlette.middleware import Middleware

    return [Middleware(GoneCopies)]


class GoneCopies:
    """Answers 503 to a request that gets no answer: the copy of the service that had it is gone.

    Serve itself lets the web server say 500 then, which tells a client that asking again is of no use. A copy of ours answers 500 itself.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            await self._app(scope, receive, watched)
        except Exception:
            if started:
                raise
        if not started:
            refusal = Refusal(503, "The copy of the service that had the request is gone.", "Try again.", {"Retry-After": "1"})
            await send_refusal(refusal, scope, receive, send)
