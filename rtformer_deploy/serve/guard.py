"""Who may ask: API keys, and pages of other sites, which may not. Pure ASGI, for HTTP and WebSocket alike."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from .refusal import Refusal
from .responses import send_refusal
from .settings import Access

#: The subprotocol that a browser names together with the one that carries its key, because it cannot set headers on a WebSocket.
STREAM_PROTOCOL = "rtformer.v1"
_KEY_PROTOCOL = "bearer."  # followed by the key in base64url without padding


class Guard:
    """Passes a request on, or refuses it with 401 or 403. `open_path` says which paths need no key."""

    def __init__(self, app: ASGIApp, access: Access, open_path: Callable[[str], bool]) -> None:
        self._app, self._access, self._open_path = app, access, open_path
        self._digests = [_digest(key.encode()) for key in access.keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            headers = Headers(scope=scope)
            refusal = self._refuse_site(headers) or self._refuse_key(scope, headers)
            if refusal is not None:
                await send_refusal(refusal, scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refuse_site(self, headers: Headers) -> Refusal | None:
        """Refuses pages of other sites; without keys also names that a page of another site may have pointed at this machine."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if origin is not None and urlsplit_host(origin) != host.lower():
            return Refusal(403, "The request comes from a page of another site.", "Only the service's own page may use it in a browser.")
        if self._access.local and not self._access.keys and not is_local(host):
            hint = "Use localhost or 127.0.0.1. Behind a proxy, give the service an API key or let the proxy send Host: localhost."
            return Refusal(403, "The service answers only requests to this machine by its local name.", hint)
        return None

    def _refuse_key(self, scope: Scope, headers: Headers) -> Refusal | None:
        if not self._digests or self._open_path(scope["path"]):
            return None
        given = _bearer(headers) or (_protocol_key(headers) if scope["type"] == "websocket" else None)
        if given is not None and self._known(given):
            return None
        what = "The service needs an API key." if given is None else "The API key is not one of the service's."
        return Refusal(401, what, "Send it as Authorization: Bearer KEY.", {"WWW-Authenticate": "Bearer"})

    def _known(self, key: bytes) -> bool:
        """Whether a key is one of ours; takes as long for a wrong key as for a right one."""
        given = _digest(key)
        same = [hmac.compare_digest(given, digest) for digest in self._digests]  # all of them: no early end tells which one fits
        return True in same


def is_local(host: str) -> bool:
    """Whether a host, with or without a port, is this machine by its loopback address."""
    name = _without_port(host)
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def urlsplit_host(origin: str) -> str:
    """An Origin header -> its host and port in lower case, as Host has them; "" for anything odd, such as "null"."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def protocols(headers: Headers) -> list[str]:
    """The subprotocols that a WebSocket's client offers."""
    return [name.strip() for value in headers.getlist("sec-websocket-protocol") for name in value.split(",")]


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0] if host.count(":") == 1 else host


def _digest(key: bytes) -> bytes:
    """Keys of one length, so that comparing them does not tell theirs."""
    return hashlib.sha256(key).digest()


def _bearer(headers: Headers) -> bytes | None:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key.strip().encode("latin-1") if scheme.lower() == "bearer" and key.strip() else None


def _protocol_key(headers: Headers) -> bytes | None:
    codes: Iterable[str] = (name.removeprefix(_KEY_PROTOCOL) for name in protocols(headers) if name.startswith(_KEY_PROTOCOL))
    code = next(iter(codes), None)
    if not code:
        return None
    try:
        return base64.urlsafe_b64decode(code + "=" * (-len(code) % 4))
    except (binascii.Error, ValueError):
        return b""
