"""The first run of an unknown model, in a process of its own: `python -c` calls `main`, see `trial`.

The file is read, put in order and run on one made-up picture, and ONNX Runtime's own profile tells every tensor's type and shape. What the
model in order gives is compared with what the file gives.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..errors import DeployError, ModelError, first_line, openvino_reason, shorten
from ..files import read_text, temporary_folder, write_atomic
from ..formats.conversion import convert
from ..formats.documents import parse_json
from ..formats.external_model import ExternalModel
from ..formats.model_file import file_sha256, load_model, serialize_model
from ..graph.clean import LEAST_OPSET
from ..graph.edit import clone
from ..graph.functions import inline_functions
from ..graph.run import open_session
from ..types import Backend
from .ends import BATCH, Prepared, prepare, refuse_empty
from .libraries import OutOfMemoryError, compile_model, explaining, is_memory, naming_memory, open_if_possible
from .seen import Observed, Seen, read_profile, seen_in, tensors_in

#: The backend that computes while it builds.
OPENVINO: Backend = "openvino"
_GRACE = 10.0  # seconds after which the process ends itself if nobody did
_TOLERANCE = 1e-4  # of the largest value
_OLDEST_OPSET = 7  # of those that ONNX Runtime runs
_NUMPY_NAMES = {"float": "float32", "double": "float64"}


@dataclass(frozen=True, slots=True)
class Request:
    """Which file to try, what the user says about it, and which backend is to build it, if that is to be tried too."""

    model: str
    external: ExternalModel
    builder: Backend | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the run showed, or the lines of an error, or that there was too little memory."""

    observed: Observed | None = None
    error: tuple[str, str | None, tuple[str, ...]] | None = None
    out_of_memory: bool = False


def main(request_path: str, answer_path: str) -> None:
    """Reads a Request and writes the Answer, as JSON files."""
    request = convert(parse_json(read_text(Path(request_path), ModelError, "a request")), Request)
    external = request.external
    deadline = time.monotonic() + external.try_seconds + _GRACE
    threading.Thread(target=_end_with, args=(os.getppid(), deadline), daemon=True).start()
    _limit_memory(external.try_memory)
    try:
        answer = Answer(attempt(Path(request.model), external))
    except DeployError as error:
        answer = Answer(error=(error.what, error.hint, error.details))
    except (MemoryError, OutOfMemoryError):
        answer = Answer(out_of_memory=True)
    write_atomic(Path(answer_path), msgspec.json.encode(answer))
    if answer.observed is None or request.builder != OPENVINO or _builds(Path(request.model), external, answer.observed):
        write_atomic(built_mark(Path(answer_path)), b"")


def built_mark(answer: Path) -> Path:
    """The file beside an answer that says that the builder came to an end too."""
    return answer.with_suffix(".built")


def _builds(path: Path, external: ExternalModel, observed: Observed) -> bool:
    """Whether OpenVINO, which computes constants when it compiles, gets along with the memory. What it refuses, the build will say."""
    prepared = prepare(load_model(path), path.name, external, convert=observed.convert).fix_batch(observed.batch)
    try:
        compile_model(_plain(prepared))
    except Exception as error:  # OpenVINO's exceptions are RuntimeErrors, but its reader raises others
        return not is_memory(error)
    return True


def attempt(path: Path, external: ExternalModel) -> Observed:
    """Runs a file's model on one picture. Raises ModelError if it cannot be read, put in order or run; OutOfMemoryError."""
    model = load_model(path)
    digest, opset = file_sha256(model), model.opset_imports.get("", LEAST_OPSET)
    file = open_if_possible(serialize_model(model))
    prepared = prepare(model, path.name, external)
    if file is None and open_if_possible(_plain(prepared)) is None:
        return _without_onnxruntime(prepared, digest)
    outputs, tensors = _run(prepared, path.name)
    refuse_empty(prepared, outputs[0].shape, path.name)
    if file is None and opset < _OLDEST_OPSET and prepared.model.opset_imports[""] >= LEAST_OPSET:
        _check_conversion(path, prepared, outputs[0], opset)
    convert = not (opset < LEAST_OPSET and _differs(file, prepared, outputs[0], path.name))
    if not convert:
        prepared = prepare(load_model(path), path.name, external, convert=False)
        outputs, tensors = _run(prepared, path.name)
    if _differs(file, prepared, outputs[0], path.name):
        what = f"{path.name} gives something else once it is put in order: this is a fault of rtformer-deploy."
        raise ModelError(what, "Report it with the model.")
    file = None  # frees its memory
    with explaining(path.name):
        open_session(_plain(prepared), optimised=True)
    batch: int | str = prepared.batch if prepared.batch != BATCH or len(outputs) == 3 else 1
    return Observed(digest, batch, convert, tensors)


def _differs(file: Any, prepared: Prepared, found: NDArray[Any], name: str) -> bool:
    """Whether a file (a session; None if ONNX Runtime refuses it) gives something else than `found`, and that each time.

    The model in order was shown the same noise.
    """
    if file is None:
        return False
    expected = _run_original(file, prepared, name)
    return not _agree(expected, found) and _agree(expected, _run_original(file, prepared, name))


def _check_conversion(path: Path, prepared: Prepared, found: NDArray[Any], opset: int) -> None:
    """Raises ModelError unless OpenVINO runs the file, which ONNX Runtime does not, and finds what the model in a newer opset gives.

    onnx's converter makes mistakes with opsets before 7.
    """
    hint = "Export it again with opset 7 or newer."
    try:
        compiled = compile_model(serialize_model(load_model(path)))
        feeds = {each.any_name: np.zeros([int(size) for size in each.shape], np.float32) for each in compiled.inputs if each.shape}
        feeds[str(prepared.source.name)] = _image(prepared, _least(prepared))
        expected = np.asarray(compiled(feeds)[str(prepared.target.name)])
    except Exception as error:  # OpenVINO's exceptions are RuntimeErrors, but its reader raises others
        what = f"{path.name} has opset {opset}, which neither ONNX Runtime nor OpenVINO runs, so that nothing checks what it becomes."
        raise ModelError(what, hint, details=[f"OpenVINO: {shorten(openvino_reason(error), 400)}"]) from error
    if not _agree(expected, found):
        raise ModelError(f"{path.name} has opset {opset}, and onnx does not convert it rightly to opset {LEAST_OPSET}.", hint)


def _plain(prepared: Prepared) -> bytes:
    """The prepared model without any functions, as ONNX bytes."""
    return serialize_model(inline_functions(clone(prepared.model)))


def _image(prepared: Prepared, batch: int, *, noisy: bool = True) -> NDArray[Any]:
    shape = [int(size) for size in prepared.shape(batch)]
    values = np.random.default_rng(0).standard_normal(shape) if noisy else np.zeros(shape)
    assert prepared.source.dtype is not None
    return values.astype(prepared.source.dtype.numpy())


def _least(prepared: Prepared) -> int:
    """The smallest batch."""
    return 1 if prepared.batch == BATCH else int(prepared.batch)


def _run_original(session: Any, prepared: Prepared, name: str) -> NDArray[Any]:
    """What the file itself gives for noise; inputs that its output does not depend on get zeros."""
    with explaining(name):
        feeds = {each.name: _zeros(each) for each in session.get_inputs()}
        feeds[str(prepared.source.name)] = _image(prepared, _least(prepared))
        return np.asarray(session.run([prepared.target.name], feeds)[0])


def _zeros(port: Any) -> NDArray[Any] | list[Any] | None:
    """What an input gets on which the output does not depend: zeros, empty texts, an empty sequence, or nothing if it may be missing."""
    kind = str(port.type)
    if not kind.startswith("tensor("):
        return [] if kind.startswith("seq(") else None
    shape = [size if isinstance(size, int) and size > 0 else 1 for size in port.shape]
    kind = kind.removeprefix("tensor(").removesuffix(")")
    return np.full(shape, "", object) if kind == "string" else np.zeros(shape, _NUMPY_NAMES.get(kind, kind))


def _run(prepared: Prepared, name: str) -> tuple[list[NDArray[Any]], dict[str, Seen]]:
    """The outputs for noise, for zeros and, if the batch is open, for two noises at once; and what ONNX Runtime's profile tells of the
    tensors between.

    If the last one fails, the model takes single images only, whatever it says of its batch, and there are two outputs.
    """
    sizes = [1, 1, 2] if prepared.batch == BATCH else [_least(prepared)] * 2
    images = [_image(prepared, batch, noisy=index != 1) for index, batch in enumerate(sizes)]
    outputs: list[NDArray[Any]] = []
    with temporary_folder() as folder, explaining(name):
        session = open_session(_plain(prepared), profile=str(folder / "profile"))
        for index, image in enumerate(images):
            with naming_memory():
                try:
                    outputs.append(np.asarray(session.run([prepared.target.name], {str(prepared.source.name): image})[0]))
                except Exception as error:
                    if index < 2 or is_memory(error):
                        raise
        if len(outputs) == 3 and (outputs[2].ndim == 0 or outputs[2].shape[0] != 2 or outputs[0].shape[0] != 1):
            outputs.pop()
        events = read_profile(Path(session.end_profiling()))
    tensors = tensors_in(events, prepared.model, len(outputs))
    tensors[str(prepared.target.name)] = seen_in([(ir.DataType.from_numpy(each.dtype).name, each.shape) for each in outputs])
    return outputs, tensors


def _without_onnxruntime(prepared: Prepared, digest: str) -> Observed:
    """What OpenVINO shows of a model that ONNX Runtime does not open. Raises ModelError if neither does."""
    try:
        output = compile_model(_plain(prepared))([_image(prepared, _least(prepared))])[0]
    except Exception as other:  # OpenVINO's exceptions are RuntimeErrors, but its reader raises others
        try:
            open_session(_plain(prepared))
        except Exception as error:
            what = f"Neither ONNX Runtime nor OpenVINO runs this model: {first_line(error, 400)}"
            raise ModelError(what, details=[f"OpenVINO: {shorten(openvino_reason(other), 400)}"]) from error
        raise
    shape = (BATCH if prepared.batch == BATCH else output.shape[0], *output.shape[1:])
    return Observed(digest, prepared.batch, True, {str(prepared.target.name): Seen(ir.DataType.from_numpy(output.dtype).name, shape)})


def _agree(expected: NDArray[Any], found: NDArray[Any]) -> bool:
    """Whether two outputs are the same but for rounding."""
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return False
    if not np.issubdtype(expected.dtype, np.floating):
        return bool((expected != found).mean() <= _TOLERANCE) if expected.size else True
    scale = float(np.nanmax(np.abs(np.where(np.isfinite(expected), expected, 0)), initial=0))
    return bool(np.allclose(expected, found, rtol=0, atol=_TOLERANCE * scale, equal_nan=True))


def _limit_memory(gib: float) -> None:
    """Makes allocations fail beyond `gib` more than this process has now, on systems that can; the parent watches too."""
    try:
        import resource

        import psutil
    except ImportError:  # Windows
        return
    most = int(psutil.Process().memory_info().vms + gib * 2**30)
    with contextlib.suppress(ValueError, OSError):  # a lower limit is there already
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _end_with(parent: int, deadline: float) -> None:
    """Ends this process when its parent has gone, or long after the parent should have ended it."""
    while os.getppid() == parent and time.monotonic() < deadline:
        time.sleep(0.5)
    os._exit(1)
