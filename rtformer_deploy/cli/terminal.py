"""Where every command prints. Text that comes from files can neither move the cursor, colour or reorder what is shown, nor begin a line.

A line is printed with `echo`, a table with `show.console`, JSON with `show.print_json`; nothing here loads rich or click.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from ..errors import OutputError

#: Control characters, line and paragraph separators, marks and overrides of the writing direction, halves of surrogate pairs.
_HIDDEN = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ud800-\udfff]")


def escape(text: str) -> str:
    """Text from anywhere -> one line in which characters that act on a terminal are written as in Python: \\x1b, \\n, \\u202e."""
    return _HIDDEN.sub(lambda found: ascii(found[0])[1:-1], text)


def escape_json(text: str) -> str:
    """A JSON document -> the same document in which such characters are JSON escapes; its line ends stay."""
    return _HIDDEN.sub(lambda found: "\n" if found[0] == "\n" else f"\\u{ord(found[0]):04x}", text)


def echo(line: str, *, err: bool = False) -> None:
    """Prints one line on stdout, or on stderr; it is escaped."""
    write(escape(line), err=err)


def write(text: str, *, err: bool = False) -> None:
    """Prints text that is safe already, and a line end. If stderr cannot be written there is nowhere to say so."""
    stream: TextIO | None = sys.stderr if err else sys.stdout  # None: closed when the process began
    if stream is None:
        return
    with contextlib.suppress(OSError) if err else contextlib.nullcontext():
        stream.write(text + "\n")
        stream.flush()


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person may look at what is written to a stream."""
    return stream is not None and stream.isatty()


def print_any_name() -> None:
    """Prints file names that are not valid text, or not in the stream's encoding, with escapes instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class _Watched:
    """A stream that remembers the error that it could not be written with; everything else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        with self._watching():
            return self._stream.write(text)

    def flush(self) -> None:
        with self._watching():
            self._stream.flush()

    @contextlib.contextmanager
    def _watching(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failure = error
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def quiet_end() -> Iterator[None]:
    """Ends a command whose stdout cannot be written, without a traceback.

    If the reader has gone (`| head -1`) nothing is said: SystemExit(1), as Python and click do it. Raises OutputError if the disk behind
    stdout is full or fails.
    """
    if sys.stdout is None:  # closed when the process began
        yield
        return
    stdout = _Watched(sys.stdout)
    try:
        with contextlib.redirect_stdout(stdout):
            try:
                yield
            finally:
                stdout.flush()
    except OSError as error:
        if stdout.failure is None:
            raise
        _write_to_nothing()
        if isinstance(stdout.failure, BrokenPipeError):
            raise SystemExit(1) from error
        raise OutputError(f"Cannot write to the standard output: {stdout.failure.strerror or error}.") from error


def _write_to_nothing() -> None:
    """Points stdout at nothing: what it still holds must not fail when Python ends.

    See https://docs.python.org/3/library/signal.html#note-on-sigpipe
    """
    with contextlib.suppress(OSError, io.UnsupportedOperation):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)
