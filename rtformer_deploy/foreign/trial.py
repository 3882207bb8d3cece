"""Has an unknown model run once in a process of its own, within bounds of time and memory, and remembers what the run showed.

A file from elsewhere may loop for ever, take all memory, or crash the library that reads it. Nothing of that reaches this process.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from ..errors import ModelError, OutputError, shorten
from ..files import RECORD_BYTES, make_folder, read_text, sha256, temporary_folder, write_atomic
from ..formats.conversion import convert
from ..formats.documents import DocumentError, parse_json
from ..formats.external_model import ExternalModel
from ..machine import cache_folder, own_version, versions
from ..types import Backend
from .attempt import OPENVINO, Answer, Request, built_mark
from .seen import Observed

_CODE = "import sys; from rtformer_deploy.foreign.attempt import main; main(*sys.argv[1:])"
_EVERY = 0.02  # seconds between two looks at the process


def observe(path: Path, file_hash: str, external: ExternalModel, builder: Backend | None = None, *, again: bool = False) -> Observed:
    """An ONNX file, its hash and what the user says about it -> what one run of it showed; from an earlier run if there was one.

    `builder` is the backend that is to build it: OpenVINO computes what is constant while it builds, so it is tried too. `again` runs the
    model in any case: data beside the file has changed. Raises ModelError if it cannot be read or run, or takes longer or more memory
    than it may.
    """
    builder = builder if builder == OPENVINO else None
    place = cache_folder()
    keys = [_key(file_hash, external, each) for each in dict.fromkeys((builder, OPENVINO))]
    kept = [] if place is None else [place / "tried" / f"{key}.json" for key in keys]
    earlier = None if again else next(filter(None, map(_earlier, kept)), None)
    if earlier is not None:
        return earlier
    observed = _run(path, external, builder)
    if kept:
        with contextlib.suppress(OutputError):  # if it cannot be kept, the model is tried again next time
            write_atomic(make_folder(kept[0].parent) / kept[0].name, msgspec.json.encode(observed))
    return observed


def _key(file_hash: str, external: ExternalModel, builder: Backend | None) -> str:
    """What the result depends on."""
    made_by = [own_version(), versions(("onnxruntime-gpu", "onnxruntime", "onnx", "onnx-ir", "openvino"))]
    return sha256(json.dumps([file_hash, external.input, external.output_name, builder, made_by]).encode())


def _earlier(path: Path) -> Observed | None:
    """What an earlier run showed; None if there was none, or its file is damaged."""
    if not os.path.isfile(path):
        return None
    try:
        return convert(_parsed(path), Observed)
    except (DocumentError, ModelError):
        return None


def _run(path: Path, external: ExternalModel, builder: Backend | None) -> Observed:
    with temporary_folder() as folder:
        request, answer, lines = folder / "request.json", folder / "answer.json", folder / "errors.txt"
        write_atomic(request, msgspec.json.encode(Request(os.path.abspath(path), external, builder)))
        with open(lines, "wb") as errors, _process(errors, str(request), str(answer)) as process:
            stopped = _watch(process, path.name, external)
        if not os.path.isfile(answer):
            text = read_text(lines, ModelError, "what a trial run printed", RECORD_BYTES, errors="replace")
            raise stopped or _ended(process.returncode, text, path.name, external)
        observed = _read(convert(_parsed(answer), Answer), path.name, external)
        if not os.path.isfile(built_mark(answer)):
            raise _not_built(path.name, external)
        return observed


def _parsed(path: Path) -> object:
    return parse_json(read_text(path, ModelError, "the result of a trial run", RECORD_BYTES), RECORD_BYTES)


@contextlib.contextmanager
def _process(lines: Any, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is over, one way or another, when the block ends: also after Ctrl-C, which it does not get itself."""
    command = [sys.executable, "-P", "-c", _CODE, *arguments]  # -P: a file of the same name in this folder must not be imported
    nothing = subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=lines, start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _watch(process: subprocess.Popen[bytes], name: str, external: ExternalModel) -> ModelError | None:
    """Waits for the process. Returns the error once it takes more time or memory than it may."""
    import psutil

    deadline, most = time.monotonic() + external.try_seconds, external.try_memory * 2**30
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        if time.monotonic() > deadline:
            return ModelError(
                f"{name} does not finish: one picture took more than {external.try_seconds:g} s in a trial run.",
                "If it is only slow, give it more time: --try-seconds N.",
            )
        with contextlib.suppress(psutil.Error):  # it has just ended
            if watched.memory_info().rss > most:
                return _too_large(name, external)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_EVERY)
    return None


def _read(answer: Answer, name: str, external: ExternalModel) -> Observed:
    if answer.error is not None:
        what, hint, details = answer.error
        raise ModelError(what, hint, details=details)
    if answer.observed is None:
        raise _too_large(name, external)
    return answer.observed


def _too_large(name: str, external: ExternalModel) -> ModelError:
    return ModelError(
        f"{name} takes too much memory: one picture needed more than {external.try_memory:g} GiB in a trial run.",
        "If that is what it needs, allow more: --try-memory GIB.",
    )


def _not_built(name: str, external: ExternalModel) -> ModelError:
    limits = f"{external.try_seconds:g} s or {external.try_memory:g} GiB"
    return ModelError(
        f"OpenVINO does not build {name} within {limits} of a trial run, in which ONNX Runtime ran it.",
        "Choose --backend onnxruntime, or allow more: --try-seconds N, --try-memory GIB.",
    )


def _ended(code: int, text: str, name: str, external: ExternalModel) -> ModelError:
    """The error for a process that ended without an answer; `text` is what it printed."""
    if any(sign in text for sign in ("bad_alloc", "MemoryError", "annot allocate memory", "failed to map segment")):
        return _too_large(name, external)
    last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
    how = f"crashed with signal {-code}" if code < 0 else f"ended with code {code}"
    return ModelError(f"{name} cannot be run: its trial run {how}{f' ({shorten(last, 200)})' if last else ''}.")
