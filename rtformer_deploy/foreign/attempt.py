"""The first run of an unknown model, in a process of its own: `python -c` calls `main`, see `trial`.

The file is read, put in order and run on one made-up picture, and ONNX Runtime's own profile tells every tensor's type and shape. What the
model in order gives is compared with what the file gives.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..errors import DeployError, ModelError, first_line
from ..files import RECORD_BYTES, read_text, size_of_file, temporary_folder, write_atomic
from ..formats.conversion import convert
from ..formats.documents import parse_json
from ..formats.external_model import ExternalModel
from ..formats.model_file import file_sha256, load_model, serialize_model
from ..graph.clean import LEAST_OPSET
from ..graph.edit import clone
from ..graph.functions import inline_functions
from ..types import Backend
from .ends import BATCH, Prepared, prepare

#: A dimension that was seen: a number, BATCH if it is the batch's, None if it is not the same for every picture.
Dim = int | str | None
#: The backend that computes while it builds.
OPENVINO: Backend = "openvino"
_NO_MEMORY = ("bad_alloc", "ailed to allocate memory", "Cannot allocate memory", "MemoryError")
_GRACE = 10.0  # seconds after which the process ends itself if nobody did
_TOLERANCE = 1e-4  # of the largest value


@dataclass(frozen=True, slots=True)
class Seen:
    """A tensor's type, by onnx_ir's name, and its shape."""

    dtype: str
    shape: tuple[Dim, ...]


@dataclass(frozen=True, slots=True)
class Observed:
    """What the run showed of the file with this hash (see `file_sha256`): every tensor that a node gave, and which batch it takes.

    `convert`: the model still gives the same in a newer opset; see `graph.clean`.
    """

    sha256: str
    batch: int | str
    convert: bool = True
    tensors: Mapping[str, Seen] = field(default_factory=dict)


class OutOfMemoryError(Exception):
    """The model took all the memory that it may."""


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
        _compile(prepared)
    except Exception as error:  # OpenVINO's exceptions are RuntimeErrors, but its reader raises others
        return not _is_memory(error)
    return True


def attempt(path: Path, external: ExternalModel) -> Observed:
    """Runs a file's model on one picture. Raises ModelError if it cannot be read, put in order or run; OutOfMemoryError."""
    model = load_model(path)
    digest, old = file_sha256(model), model.opset_imports.get("", LEAST_OPSET) < LEAST_OPSET
    file = _open_if_possible(serialize_model(model))
    prepared = prepare(model, path.name, external)
    if file is None and _open_if_possible(_plain(prepared)) is None:
        return _without_onnxruntime(prepared, digest)
    outputs, tensors = _run(prepared, path.name)
    convert = not (old and _differs(file, prepared, outputs[0], path.name))
    if not convert:
        prepared = prepare(load_model(path), path.name, external, convert=False)
        outputs, tensors = _run(prepared, path.name)
    if _differs(file, prepared, outputs[0], path.name):
        what = f"{path.name} gives something else once it is put in order: this is a fault of rtformer-deploy."
        raise ModelError(what, "Report it with the model.")
    file = None  # frees its memory
    with _explaining(path.name):
        _open(_plain(prepared), optimised=True)
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
    with _explaining(name):
        feeds = {each.name: _zeros(each) for each in session.get_inputs()}
        feeds[str(prepared.source.name)] = _image(prepared, _least(prepared))
        return np.asarray(session.run([prepared.target.name], feeds)[0])


def _zeros(port: Any) -> NDArray[Any]:
    kinds = {"float": "float32", "double": "float64"}
    kind = str(port.type).removeprefix("tensor(").removesuffix(")")
    return np.zeros([size if isinstance(size, int) and size > 0 else 1 for size in port.shape], kinds.get(kind, kind))


def _run(prepared: Prepared, name: str) -> tuple[list[NDArray[Any]], dict[str, Seen]]:
    """The outputs for noise, for zeros and, if the batch is open, for two noises at once; and what ONNX Runtime's profile tells of the
    tensors between.

    If the last one fails, the model takes single images only, whatever it says of its batch, and there are two outputs.
    """
    sizes = [1, 1, 2] if prepared.batch == BATCH else [_least(prepared)] * 2
    images = [_image(prepared, batch, noisy=index != 1) for index, batch in enumerate(sizes)]
    outputs: list[NDArray[Any]] = []
    with temporary_folder() as folder, _explaining(name):
        session = _open(_plain(prepared), profile=str(folder / "profile"))
        for index, image in enumerate(images):
            with _naming_memory():
                try:
                    outputs.append(np.asarray(session.run([prepared.target.name], {str(prepared.source.name): image})[0]))
                except Exception as error:
                    if index < 2 or _is_memory(error):
                        raise
        if len(outputs) == 3 and (outputs[2].ndim == 0 or outputs[2].shape[0] != 2 or outputs[0].shape[0] != 1):
            outputs.pop()
        events = _events(Path(session.end_profiling()))
    tensors = _tensors(events, prepared.model, len(outputs))
    tensors[str(prepared.target.name)] = _seen([(ir.DataType.from_numpy(each.dtype).name, each.shape) for each in outputs])
    return outputs, tensors


def _events(profile: Path) -> list[dict[str, Any]]:
    """The events of ONNX Runtime's profile; none if a loop made it too long to read."""
    if size_of_file(profile, ModelError) > RECORD_BYTES:
        return []
    events: list[dict[str, Any]] = parse_json(read_text(profile, ModelError, "a profile", RECORD_BYTES), RECORD_BYTES)
    return events


def _tensors(events: Sequence[Mapping[str, Any]], model: ir.Model, runs: int) -> dict[str, Seen]:
    """The tensors of the main graph, from the shapes in a profile of `runs` runs; one that broke off may follow."""
    told: dict[str, list[Any]] = {}
    for event in sorted((event for event in events if event.get("cat") == "Node"), key=lambda event: event["ts"]):
        if event["name"].endswith("_kernel_time"):
            told.setdefault(event["name"].removesuffix("_kernel_time"), []).append(event["args"].get("output_type_shape", []))
    tensors = {}
    for node in model.graph:
        outputs = [output for output in node.outputs if output.name]
        for index, output in enumerate(outputs):
            shown = [run[index] for run in told.get(node.name or "", [])[:runs] if len(run) == len(outputs)]
            pairs = [(_TYPES.get(kind, ""), tuple(shape)) for each in shown for kind, shape in each.items()]
            if len(pairs) == runs and all(kind for kind, _ in pairs):
                tensors[str(output.name)] = _seen(pairs)
    return tensors


def _seen(runs: Sequence[tuple[str, tuple[int, ...]]]) -> Seen:
    """Types and shapes of one tensor in every run -> what it is. The third run, if there is one, has a batch of two."""
    kind, first = runs[0]
    if any(len(shape) != len(first) for _, shape in runs):
        return Seen(kind, ())
    dims: list[Dim] = [int(size) if len({shape[axis] for _, shape in runs}) == 1 else None for axis, size in enumerate(first)]
    if len(runs) == 3 and first and first[0] == runs[1][1][0] == 1 and runs[2][1][0] == 2:
        dims[0] = BATCH
    return Seen(kind, tuple(dims))


_TYPES = {
    "float": "FLOAT", "float16": "FLOAT16", "double": "DOUBLE", "bfloat16": "BFLOAT16", "bool": "BOOL", "int8": "INT8", "uint8": "UINT8",
    "int16": "INT16", "uint16": "UINT16", "int32": "INT32", "uint32": "UINT32", "int64": "INT64", "uint64": "UINT64",
}  # fmt: skip


def _without_onnxruntime(prepared: Prepared, digest: str) -> Observed:
    """What OpenVINO shows of a model that ONNX Runtime does not open. Raises ModelError if neither does."""
    try:
        output = _compile(prepared)([_image(prepared, _least(prepared))])[0]
    except Exception as other:  # OpenVINO's exceptions are RuntimeErrors, but its reader raises others
        try:
            _open(_plain(prepared))
        except Exception as error:
            what = f"Neither ONNX Runtime nor OpenVINO runs this model: {first_line(error)}"
            raise ModelError(what, details=[f"OpenVINO: {first_line(other)}"]) from error
        raise
    shape = (BATCH if prepared.batch == BATCH else output.shape[0], *output.shape[1:])
    return Observed(digest, prepared.batch, True, {str(prepared.target.name): Seen(ir.DataType.from_numpy(output.dtype).name, shape)})


def _compile(prepared: Prepared) -> Any:
    """An openvino.CompiledModel on the CPU, as the backend makes it."""
    import io

    import openvino as ov

    model = ov.Core().read_model(io.BytesIO(_plain(prepared)))
    return ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def _open_if_possible(data: bytes) -> Any:
    """An ONNX Runtime session, or None if ONNX Runtime refuses the model. Raises OutOfMemoryError."""
    try:
        with _naming_memory():
            return _open(data)
    except (OutOfMemoryError, MemoryError):
        raise
    except Exception:  # ONNX Runtime's exceptions share no base of their own
        return None


def _open(data: bytes, *, optimised: bool = False, profile: str | None = None) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4  # only what ends the process: errors are raised
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, "ORT_ENABLE_ALL" if optimised else "ORT_DISABLE_ALL")
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, profile
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _agree(expected: NDArray[Any], found: NDArray[Any]) -> bool:
    """Whether two outputs are the same but for rounding."""
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return False
    if not np.issubdtype(expected.dtype, np.floating):
        return bool((expected != found).mean() <= _TOLERANCE) if expected.size else True
    scale = float(np.nanmax(np.abs(np.where(np.isfinite(expected), expected, 0)), initial=0))
    return bool(np.allclose(expected, found, rtol=0, atol=_TOLERANCE * scale, equal_nan=True))


def _is_memory(error: Exception) -> bool:
    return any(text in f"{type(error).__name__} {error}" for text in _NO_MEMORY)


@contextlib.contextmanager
def _naming_memory() -> Any:
    try:
        yield
    except Exception as error:
        if _is_memory(error):
            raise OutOfMemoryError from error
        raise


@contextlib.contextmanager
def _explaining(name: str) -> Any:
    """Turns ONNX Runtime's errors into a ModelError."""
    try:
        with _naming_memory():
            yield
    except (DeployError, OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # ONNX Runtime's exceptions share no base of their own
        raise ModelError(f"{name} does not run: {first_line(error, 400)}") from error


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
