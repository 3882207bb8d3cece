"""Keeps TensorRT's messages, so that an error can say why a build failed or a plan does not open."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from typing import Any

from ...errors import shorten

_MAX_MESSAGES = 1000  # messages; a runner may live for days
_MAX_LINES = 20
_MAX_LENGTH = 400  # characters of a line
#: Lines of the parser that only say where it was, and one about the logger itself.
_FRAMES = re.compile(
    r"^(ModelImporter\.cpp:\d+: )?(While parsing node number|--- (Begin|End) node ---|Node name: |ERROR: |WARNING The logger passed into)"
)
#: What follows from another error, or from there being no GPU; it is no cause unless nothing else is said.
_AFTER = re.compile(r"CUDA driver version is insufficient|cudaError 35|Cuda Runtime|^Invalid Node - ")
_PLACE = re.compile(r"^\[\d+\] ")


class MessageLog:
    """A TensorRT logger that keeps errors and warnings, so that an error can say why; nothing goes to the terminal."""

    def __init__(self, trt: Any) -> None:
        self.errors: deque[str] = deque(maxlen=_MAX_MESSAGES)
        self.warnings: deque[str] = deque(maxlen=_MAX_MESSAGES)
        self.logger = _logger_class(trt)(self)

    def messages(self) -> list[str]:
        """The errors and then the warnings, a line each, the first cause first."""
        return [*causes_first("\n".join(self.errors)), *causes_first("\n".join(self.warnings))]

    def lines(self) -> list[str]:
        """What `messages` gives, as details of an error; one line says if there are no messages."""
        return as_details(self.messages() or ["TensorRT gave no reason"])

    def text(self) -> str:
        """The messages of `lines` in one text; empty if there are none."""
        return "\n".join(self.lines()) if self.errors or self.warnings else ""


def causes_first(text: str) -> list[str]:
    """TensorRT's messages as lines, each once: causes in their order, then what only follows from them, such as that there is no GPU."""
    lines = (_PLACE.sub("", line.strip()) for line in text.splitlines())
    unique = list(dict.fromkeys(line for line in lines if line and not _FRAMES.match(line)))
    return [line for line in unique if not _AFTER.search(line)] + [line for line in unique if _AFTER.search(line)]


def as_details(lines: Iterable[str]) -> list[str]:
    """Lines as the details of an error: indented, cut to a readable length and number, with a line that says how many were left out."""
    every = [f"  {shorten(line, _MAX_LENGTH)}" for line in lines]
    left = len(every) - _MAX_LINES
    return every if left <= 0 else [*every[:_MAX_LINES], f"  ... and {left} more lines"]


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
