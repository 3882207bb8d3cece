"""Refusals: what a client gets instead of an answer, always one JSON document {"error", "hint"} with a status."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ..errors import DeployError, ImageError, ImageTooLargeError, MissingPackageError, UsageError
from .batcher import ClosedError, LateError, QueueFullError
from .engine_host import EngineDownError

_STOPPING_S = 5  # when to try again if the service is stopping: another copy of it may be up by then


class Refusal(Exception):  # noqa: N818 - it is an answer, not a fault
    """A status, what happened, and what to do about it. `headers` are added to the response."""

    def __init__(self, status: int, what: str, hint: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(what)
        self.status, self.what, self.hint = status, what, hint
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        """The JSON document."""
        return json.dumps(self.document()).encode()

    def document(self) -> dict[str, str]:
        return {"error": self.what} | ({} if self.hint is None else {"hint": self.hint})


class LeftError(Exception):
    """The client closed its connection; nobody waits for the answer."""


def refusal_of(error: Exception) -> Refusal:
    """Any exception of a request -> its Refusal: 4xx if the request is to blame, 429, 503, 504, else 500."""
    match error:
        case Refusal():
            return error
        case QueueFullError():
            hint = f"Try again in {error.retry_after_s} s."
            return Refusal(429, "The service has as many requests as it takes.", hint, {"Retry-After": str(error.retry_after_s)})
        case LateError() | TimeoutError():
            return Refusal(504, "The answer would have come after the request's deadline.", "Send less at a time, or raise --deadline.")
        case ClosedError():
            return stopping()
        case EngineDownError():
            return Refusal(503, error.what, error.hint)
        case ImageTooLargeError():
            return Refusal(413, error.what, error.hint)
        case ImageError() | UsageError():
            return Refusal(400, error.what, error.hint)
        case MissingPackageError():
            return Refusal(400, error.what, "The service needs it; another output does not.")
        case DeployError():
            return Refusal(500, error.what, error.hint)
    return Refusal(500, "The service failed on this request.", "Its log says why.")


def stopping() -> Refusal:
    """What requests get once the service is stopping."""
    return Refusal(503, "The service is stopping.", "Try again; another copy may answer.", {"Retry-After": str(_STOPPING_S)})
