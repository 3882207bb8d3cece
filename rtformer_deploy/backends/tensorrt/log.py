"""TensorRT's words, kept, so that a failed build or a plan that does not open can say why."""

from __future__ import annotations

from collections import deque
from typing import Any

_KEPT = 1000  # messages; a runner may live for days
_SHOWN = 20


class MessageLog:
    """A TensorRT logger that keeps errors and warnings, so that an error can say why; nothing goes to the terminal."""

    def __init__(self, trt: Any) -> None:
        self.errors: deque[str] = deque(maxlen=_KEPT)
        self.warnings: deque[str] = deque(maxlen=_KEPT)
        self.logger = _logger_class(trt)(self)

    def text(self) -> str:
        """What was said, the errors first, shortened to what a person reads; empty if nothing was."""
        lines = list(dict.fromkeys(self.errors)) or list(dict.fromkeys(self.warnings))
        return "\n".join(f"  {line}" for line in lines[:_SHOWN])


def _logger_class(trt: Any) -> Any:
    """A subclass of this TensorRT's ILogger: the base class is known only once the module is."""

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
