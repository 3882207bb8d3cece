"""Keeps TensorRT's messages, so that an error can say why a build failed or a plan does not open."""

from __future__ import annotations

from collections import deque
from typing import Any

_MAX_MESSAGES = 1000  # messages; a runner may live for days
_MAX_LINES = 20


class MessageLog:
    """A TensorRT logger that keeps errors and warnings, so that an error can say why; nothing goes to the terminal."""

    def __init__(self, trt: Any) -> None:
        self.errors: deque[str] = deque(maxlen=_MAX_MESSAGES)
        self.warnings: deque[str] = deque(maxlen=_MAX_MESSAGES)
        self.logger = _logger_class(trt)(self)

    def lines(self) -> list[str]:
        """The first errors, or if there are none the first warnings, as lines of an error; one line says if there are no messages."""
        messages = list(dict.fromkeys(self.errors)) or list(dict.fromkeys(self.warnings)) or ["TensorRT gave no reason"]
        return [f"  {line}" for message in messages[:_MAX_LINES] for line in message.splitlines()]

    def text(self) -> str:
        """The messages of `lines` in one text; empty if there are none."""
        return "\n".join(self.lines()) if self.errors or self.warnings else ""


def _logger_class(trt: Any) -> Any:
    """A subclass of this TensorRT's ILogger. The base class is known only after the import."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self, log: MessageLog) -> None:
            trt.ILogger.__init__(self)
            self._log = log

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self._log.errors.append(message.strip())
            elif severity == trt.ILogger.WARNING:
                self._log.warnings.append(message.strip())

    return Logger
