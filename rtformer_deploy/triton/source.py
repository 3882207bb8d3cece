"""A plan or an ONNX model -> what a repository is made of, or why Triton cannot serve it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..backends import backend_row
from ..errors import EngineError, ModelError, UsageError
from ..files import read_bytes
from ..formats.documents import JSON_BYTES
from ..formats.engine_file import load_engine, sidecar
from ..formats.external_model import ExternalModel
from ..formats.model_file import is_model, serialize_model, stamp_spec
from ..formats.safetensors_file import is_weights
from ..graph.functions import inline_functions
from ..pipeline import read_model
from ..runtime.session import rebuild_command, refuse_stripped
from ..types import EngineInfo, ModelSpec, TensorSpec

#: What Triton runs a model with: its own backends, or this package in its Python backend.
Runs = Literal["tensorrt_plan", "onnxruntime", "python"]


@dataclass(frozen=True, slots=True)
class Source:
    """A model under its `name`: what runs it, its input and output, its (min, opt, max) batch, and the bytes of its file.

    `fixed`: the batch is part of the graph. `info` describes a plan and `sidecar` is the file that says so; an ONNX model has none.
    """

    name: str
    runs: Runs
    spec: ModelSpec
    input: TensorSpec
    output: TensorSpec
    batch: tuple[int, int, int]
    fixed: bool
    data: bytes
    info: EngineInfo | None = None
    sidecar: bytes = b""

    @property
    def was_started(self) -> bool:
        """Whether a repository of this kind was ever started in a Triton, by the tests: plans for a CPU were."""
        return self.runs == "python" and not self.is_rtx

    @property
    def is_rtx(self) -> bool:
        """Whether it is a TensorRT-RTX plan, also one that standard TensorRT's bindings built over that library."""
        return self.info is not None and is_rtx(self.info)


def read_source(name: str, path: Path, external: ExternalModel, largest: int) -> Source:
    """A file -> its Source. `external` describes an ONNX model from elsewhere, `largest` is the batch of one that leaves it open.

    Raises EngineError or ModelError, also for a batch that Triton could not serve, UsageError for a network's weights.
    """
    if is_weights(path):
        what = f"{path} is a network's weights, and Triton serves engine plans and ONNX models."
        raise UsageError(what, f"Export them first: rtformer-deploy export --weights {path}")
    source = _of_model(name, path, external, largest) if is_model(path) else _of_plan(name, path)
    _check_batch(source, path)
    return source


def is_rtx(info: EngineInfo) -> bool:
    return info.backend == "tensorrt-rtx" or (info.backend == "tensorrt" and "RTX" in info.builder_version)


def _of_plan(name: str, path: Path) -> Source:
    engine = load_engine(path)
    info = engine.info
    refuse_stripped(info)
    is_standard = backend_row(info.backend).name == "tensorrt" and not is_rtx(info)
    if is_standard and info.options.get("plugins"):
        what = f"{path} was built with --plugins, which Triton's TensorRT does not have."
        raise EngineError(what, f"Build it without: {rebuild_command(info)}")
    fixed = isinstance(info.inputs[0].shape[0], int)
    runs: Runs = "tensorrt_plan" if is_standard else "python"
    description = read_bytes(sidecar(path), EngineError, "a sidecar", JSON_BYTES)
    return Source(name, runs, info.spec, info.inputs[0], info.outputs[0], info.batch, fixed, engine.plan, info, description)


def _of_model(name: str, path: Path, external: ExternalModel, largest: int) -> Source:
    """The model with its functions inlined and its spec in it, so that what reads the repository needs nothing else."""
    model, spec = read_model(path, external)
    inline_functions(model)
    stamp_spec(model, spec)
    batch = spec.input.shape[0]
    sizes = (batch, batch, batch) if isinstance(batch, int) else (1, largest, largest)
    return Source(name, "onnxruntime", spec, spec.input, spec.output, sizes, isinstance(batch, int), serialize_model(model))


def _check_batch(source: Source, path: Path) -> None:
    """Raises EngineError or ModelError if Triton's batches do not fit; in its Python backend this package fills up small ones."""
    error = ModelError if source.info is None else EngineError
    smallest, _, largest = source.batch
    if not source.fixed and largest == 1:
        what = f"{path} leaves its batch open but takes one frame at most, so Triton would have nothing to batch."
        raise error(what, "Build it with --max N, or export the model with a fixed batch: --batch 1.")
    if source.runs != "python" and smallest > 1:
        frames = f"exactly {smallest} frames" if source.fixed else f"at least {smallest} frames"
        what = f"{path} takes {frames} at once, so Triton could not answer a request for one."
        raise error(what, "Export the model with --batch 1, or with --batch dynamic, and build it with --min 1.")
