"""The first run of an unknown model, in a process of its own: `python -c` calls `main`, see `trial`.

The file is read, put in order and run on one made-up picture, and ONNX Runtime's own profile tells every tensor's type and shape. What the
model in order gives is compared with what the file gives.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..errors import DeployError, ModelError, first_line
from ..files import read_text, temporary_folder, write_atomic
from ..formats.external_model import ExternalModel
from ..formats.model_file import file_sha256, load_model, serialize_model
from ..graph.clean import LEAST_OPSET
from ..graph.edit import clone
from ..graph.functions import inline_functions
from .ends import BATCH, Prepared, prepare

#: A dimension that was seen: a number, BATCH if it is the batch's, None if it is not the same for every picture.
Dim = int | str | None
_NO_MEMORY = ("bad_alloc", "ailed to allocate memory", "Cannot allocate memory", "MemoryError")
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


def main(request_path: str, answer_path: str) -> None:
    """Reads a request (see `trial`) and writes the Observed, or the error, as JSON."""
    request = json.loads(read_text(Path(request_path), ModelError, "a request"))
    parent = os.getppid()
    threading.Thread(target=_end_with, args=(parent, time.monotonic() + request["external"]["try_seconds"] + 10), daemon=True).start()
    external = ExternalModel(**{key: tuple(value) if isinstance(value, list) else value for key, value in request["external"].items()})
    _limit_memory(external.try_memory)
    try:
        answer: dict[str, Any] = {"observed": asdict(attempt(Path(request["model"]), external))}
    except DeployError as error:
        answer = {"error": {"what": error.what, "hint": error.hint, "details": list(error.details)}}
    except (MemoryError, OutOfMemoryError):
        answer = {"memory": True}
    write_atomic(Path(answer_path), json.dumps(answer).encode())


def attempt(path: Path, external: ExternalModel) -> Observed:
    """Runs a file's model on one picture. Raises ModelError if it cannot be read, put in order or run; OutOfMemoryError."""
    model = load_model(path)
    digest, original = file_sha256(model), serialize_model(model)
    old = model.opset_imports.get("", LEAST_OPSET) < LEAST_OPSET
    prepared = prepare(model, path.name, external)
    image = _image(prepared, 1 if prepared.batch == BATCH else int(prepared.batch), noisy=True)
    try:
        with _naming_memory():
            session = _open(original)
    except (OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # ONNX Runtime's exceptions share no base of their own
        return _without_onnxruntime(prepared, image, digest, error)
    expected = _run_original(session, prepared, image, path.name)
    outputs, tensors = _run(prepared, path.name)
    convert = not old or _agree(expected, outputs[0])
    if not convert:
        prepared = prepare(load_model(path), path.name, external, convert=False)
        outputs, tensors = _run(prepared, path.name)
    if not _agree(expected, outputs[0]) and _agree(expected, _run_original(session, prepared, image, path.name)):
        what = f"{path.name} gives something else once it is put in order: this is a fault of rtformer-deploy."
        raise ModelError(what, "Report it with the model.")
    with _explaining(path.name):
        _open(_plain(prepared), optimised=True)
    batch: int | str = prepared.batch if prepared.batch != BATCH or len(outputs) == 3 else 1
    return Observed(digest, batch, convert, tensors)


def _plain(prepared: Prepared) -> bytes:
    """The prepared model without any functions, as ONNX bytes."""
    return serialize_model(inline_functions(clone(prepared.model)))


def _image(prepared: Prepared, batch: int, *, noisy: bool) -> NDArray[Any]:
    shape = [int(size) for size in prepared.shape(batch)]
    values = np.random.default_rng(0).standard_normal(shape) if noisy else np.zeros(shape)
    assert prepared.source.dtype is not None
    return values.astype(prepared.source.dtype.numpy())


def _run_original(session: Any, prepared: Prepared, image: NDArray[Any], name: str) -> NDArray[Any]:
    """What the file itself gives; inputs that its output does not depend on get zeros."""
    with _explaining(name):
        feeds = {each.name: _zeros(each) for each in session.get_inputs()}
        return np.asarray(session.run([prepared.target.name], {**feeds, str(prepared.source.name): image})[0])


def _zeros(port: Any) -> NDArray[Any]:
    kinds = {"float": "float32", "double": "float64"}
    kind = str(port.type).removeprefix("tensor(").removesuffix(")")
    return np.zeros([size if isinstance(size, int) and size > 0 else 1 for size in port.shape], kinds.get(kind, kind))


def _run(prepared: Prepared, name: str) -> tuple[list[NDArray[Any]], dict[str, Seen]]:
    """The outputs for noise, for zeros and, if the batch is open, for two noises at once; and what ONNX Runtime's profile tells of the
    tensors between.

    If the last one fails, the model takes single images only, whatever it says of its batch, and there are two outputs.
    """
    sizes = [1, 1, 2] if prepared.batch == BATCH else [int(prepared.batch)] * 2
    images = [_image(prepared, batch, noisy=index != 1) for index, batch in enumerate(sizes)]
    outputs: list[NDArray[Any]] = []
    with temporary_folder() as folder, _explaining(name):
        session = _open(_plain(prepared), profile=str(folder / "profile"))
        for index, image in enumerate(images):
            with _naming_memory():
                try:
                    outputs.append(np.asarray(session.run([prepared.target.name], {str(prepared.source.name): image})[0]))
                except Exception as error:
                    if index < 2 or any(text in str(error) for text in _NO_MEMORY):
                        raise
        if len(outputs) == 3 and (outputs[2].ndim == 0 or outputs[2].shape[0] != 2 or outputs[0].shape[0] != 1):
            outputs.pop()
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    tensors = _tensors(events, prepared.model, len(outputs))
    tensors[str(prepared.target.name)] = _seen([(ir.DataType.from_numpy(each.dtype).name, each.shape) for each in outputs])
    return outputs, tensors


def _tensors(events: Sequence[Mapping[str, Any]], model: ir.Model, runs: int) -> dict[str, Seen]:
    """The tensors of the main graph, from the shapes in a profile; those whose nodes ran more often than `runs` are left out."""
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


def _without_onnxruntime(prepared: Prepared, image: NDArray[Any], digest: str, error: Exception) -> Observed:
    """What OpenVINO shows of a model that ONNX Runtime does not open. Raises ModelError if neither does."""
    import io

    import openvino as ov

    try:
        model = ov.Core().read_model(io.BytesIO(_plain(prepared)))
        compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        output = compiled([image])[0]
    except Exception as other:  # OpenVINO's exceptions are RuntimeErrors, but its reader raises others
        raise ModelError(
            f"Neither ONNX Runtime nor OpenVINO runs this model: {first_line(error)}", details=[f"OpenVINO: {first_line(other)}"]
        ) from error
    shape = (BATCH if prepared.batch == BATCH else output.shape[0], *output.shape[1:])
    return Observed(digest, prepared.batch, True, {str(prepared.target.name): Seen(ir.DataType.from_numpy(output.dtype).name, shape)})


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


@contextlib.contextmanager
def _naming_memory() -> Any:
    try:
        yield
    except Exception as error:
        if any(text in f"{type(error).__name__} {error}" for text in _NO_MEMORY):
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


if __name__ == "__main__":
    main(*sys.argv[1:3])
