"""Contestants' processes: started, called, and ended whatever happens. One that fails, crashes or hangs is an error with its reason."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from types import TracebackType
from typing import IO, Any, Self

import msgspec

from ..errors import DeployError, EngineError, shorten
from ..files import RECORD_BYTES
from ..formats.conversion import convert
from ..formats.documents import parse_json
from .contestant import Answer, Call, Check, Checked, Contestant, Ready, Request, Setup, Turn

_CODE = "from rtformer_deploy.comparison.worker import main; main()"
#: Seconds in which a contestant must be open: torch.compile and a GPU's runtime compilation take minutes.
OPEN_LIMIT = 1800.0
#: Seconds that a turn may take beyond the time that it was asked to measure: the fewest steps of a very slow network.
TURN_LIMIT = 600.0
#: Seconds that a check may take: a split of thousands of frames.
CHECK_LIMIT = 24 * 3600.0


class Process:
    """One contestant, open in a process of its own so that its memory and threads are its own. A context manager."""

    def __init__(self, contestant: Contestant, frame_size: tuple[int, int]) -> None:
        """Starts it and waits until it is open. Raises the DeployError that says why it cannot be opened."""
        self.name = contestant.name
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        command = [sys.executable, "-P", "-c", _CODE]  # -P: a file of the same name in this folder must not be imported
        pipe = subprocess.PIPE  # a session of its own: Ctrl-C is for this process, which ends it
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._errors, start_new_session=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            ready = self._ask(Setup(contestant, frame_size), OPEN_LIMIT).ready
        except BaseException:
            self.close()
            raise
        assert ready is not None  # the answer to a Setup
        self.ready: Ready = ready

    def turn(self, seconds: float, warmup: float = 0.0) -> Turn:
        """Measures for `seconds` after `warmup` seconds. Raises the DeployError that it met, EngineError if it crashed or hangs."""
        turn = self._ask(Request(Call(seconds, warmup)), seconds + warmup + TURN_LIMIT).turn
        assert turn is not None  # the answer to a Call
        return turn

    def check(self, check: Check) -> Checked:
        """Compares the contestant's label maps, and scores them if the check says where. Raises as `turn`."""
        checked = self._ask(Request(check=check), CHECK_LIMIT).checked
        assert checked is not None  # the answer to a Check
        return checked

    def close(self) -> None:
        """Ends the process, and those that it has started: torch.compile starts compilers."""
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        self._reader.join(5)  # it ends with the pipe
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(BrokenPipeError):  # a request that it never read
                if stream is not None:
                    stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _ask(self, request: Any, limit: float) -> Answer:
        line = self._line(msgspec.json.encode(request) + b"\n", limit)
        if not line.endswith(b"\n"):
            raise self._ended()
        answer = convert(parse_json(line, RECORD_BYTES), Answer)
        if answer.refusal is not None:
            raise DeployError(answer.refusal.what, answer.refusal.hint, details=answer.refusal.details)
        return answer

    def _line(self, request: bytes, limit: float) -> bytes:
        """Sends a request and returns the answer's line, or what there is of it once the process ends."""
        sending = self._process.stdin
        assert sending is not None
        try:
            sending.write(request)
            sending.flush()
        except BrokenPipeError:
            return b""
        try:
            return self._lines.get(timeout=limit)
        except queue.Empty as error:
            raise EngineError(f"{self.name} gave no answer within {limit:,.0f} s.") from error

    def _read(self) -> None:
        """Hands on the lines that the process writes, the last one empty. A thread, because not every system can wait for a pipe."""
        receiving = self._process.stdout
        assert receiving is not None
        for line in receiving:
            self._lines.put(line)
        self._lines.put(b"")

    def _ended(self) -> EngineError:
        """The error for a process that ended before it answered, with the last line that it printed."""
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read()[-(2**14) :].decode("utf-8", "replace").splitlines()
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        how = f"crashed ({signal.Signals(-code).name})" if code < 0 else f"ended with code {code}"
        return EngineError(f"The process of {self.name} {how}{f': {shorten(last, 300)}' if last else ''}.")
