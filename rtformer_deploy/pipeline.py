"""The stages composed: what needs two rooms meets here. Each function reads as one sentence."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from .backends import REFERENCE, backend_row, build, open_engine
from .errors import BuildError, CalibrationError, MissingPackageError, ModelError, OutputError, PrecisionError
from .formats.engine_file import load_engine, save_info
from .formats.external_model import Foreign, fix_size, foreign_spec
from .formats.model_file import file_sha256, load_model, read_spec, stamp_spec, weights_sha256
from .formats.ranges import check_ranges, ranges_hash
from .graph.fp16 import KEEP_FP32, to_fp16
from .graph.functions import add_functions, inline_functions
from .graph.gather import flatten_gathers
from .graph.head import set_head
from .graph.names import name_tensors, strip_traces
from .graph.qdq import to_qdq
from .graph.quick_plugins import use_quick_plugins
from .graph.simplify import simplify
from .image.frames import load_image
from .image.samples import drawn_street, sample_photograph
from .runtime.frame_runner import FrameRunner
from .types import Backend, BuildOptions, Engine, Frame, ModelSpec, PrecisionFound, Progress, Ranges, Runner, no_progress

if TYPE_CHECKING:
    from torch import nn

    from .export.parity import Parity


@dataclass(frozen=True, slots=True)
class Exported:
    """An exported model, what it is, and how well it agrees with the network."""

    model: ir.Model
    spec: ModelSpec
    parity: Parity


def export_model(network: nn.Module, spec: ModelSpec, opset: int | None = None) -> Exported:
    """Network -> ONNX with named tensors and recognisable attention, simplified, stamped, and checked against the network.

    Raises ModelError where the exported model differs, naming where.
    """
    require("torch", "export", "Exporting")
    require("onnxscript", "export", "Exporting")
    from .export.export import DEFAULT_OPSET, export_network
    from .export.parity import check_export

    model = strip_traces(name_tensors(export_network(network, spec, opset or DEFAULT_OPSET)))
    model = set_head(simplify(add_functions(model)), spec)
    stamp_spec(model, spec)
    return Exported(model, spec, check_export(network, model, spec))


def prepare_model(
    model: ir.Model,
    backend: Backend,
    options: BuildOptions,
    ranges: Ranges | None = None,
    keep: Sequence[str] = (),
    fp32: Sequence[str] = (),
) -> ir.Model:
    """A model as its builder wants it: Q/DQ for INT8, FP16 written into the graph for TensorRT (strongly typed); no functions.

    `keep` names what INT8 leaves out, `fp32` what stays in FP32 on TensorRT (globs); on a CPU what is not INT8 is FP32 anyway.
    """
    row = backend_row(backend)
    if options.precision == "int8":
        if ranges is None:
            raise CalibrationError("INT8 needs the ranges of the model's tensors.", "Measure them: rtformer-deploy calibrate --images DIR.")
        model = to_qdq(model, ranges, row.placement, keep)
    plugins = options.plugins and row.plugins  # the other builders refuse them
    if row.on_gpu and options.precision != "fp32":
        model = to_fp16(model, fp32, () if plugins else KEEP_FP32)
    if plugins:
        model = use_quick_plugins(model)
    model = inline_functions(model)
    quantised = any(node.op_type == "DequantizeLinear" for node in model.graph)  # by us, or by another tool before
    return flatten_gathers(model) if quantised and not row.on_gpu else model


def build_engine(
    model: ir.Model,
    spec: ModelSpec,
    backend: Backend,
    options: BuildOptions,
    *,
    ranges: Ranges | None = None,
    keep: Sequence[str] = (),
    fp32: Sequence[str] = (),
    strict: bool = False,
    progress: Progress = no_progress,
) -> Engine:
    """ONNX -> engine: prepared, built, and where this machine can run it, run once against ONNX Runtime on the model it came from.

    INT8 takes `ranges` of these weights, and leaves the nodes that `keep` names (globs) in high precision; TensorRT
    computes those that `fp32` names in FP32. Raises BuildError, CalibrationError; with `strict` PrecisionError where the engine does not
    have the precision that was asked for.
    """
    if options.precision != "int8":
        ranges = None
    if ranges is not None:
        check_ranges(ranges, spec.name, weights_sha256(model, spec))
    prepared = prepare_model(model, backend, options, ranges, keep, fp32)
    engine = build(prepared, spec, backend, options, progress, model_sha256=file_sha256(model))
    kept = {"strict": True} if strict else {}  # a plan that cannot be opened here is judged where it is opened first
    info = replace(
        engine.info,
        ranges_sha256=None if ranges is None else ranges_hash(ranges),
        options={**engine.info.options, **kept},
    )
    engine = complete_precision(replace(engine, info=info), options.device)
    if strict:
        refuse_mismatch(engine)
    if can_run_here(engine):
        share = flips(engine, model, spec, options)
        engine = replace(engine, info=replace(engine.info, flips=share))
    return engine


def complete_precision(engine: Engine, device: int = 0) -> Engine:
    """An engine whose precision was only "requested" when it was built -> the same, read from its layers, where they can be read here."""
    if not backend_row(engine.info.backend).on_gpu or engine.info.precision.state != "requested" or not can_run_here(engine):
        return engine
    from .backends.tensorrt.run import precision_after_open

    found: PrecisionFound = precision_after_open(engine, device)
    return replace(engine, info=replace(engine.info, precision=found))


def refuse_mismatch(engine: Engine) -> None:
    """Raises PrecisionError where the engine's layers do not have the precision that was asked for."""
    found = engine.info.precision
    if found.state == "mismatch":
        raise PrecisionError(
            f"--strict: {found.asked} was asked for and is not what the engine has: {found.detail or dict(found.layers)}.",
            "Leave --strict out to build it all the same.",
        )


def can_run_here(engine: Engine) -> bool:
    """Whether this machine can open the engine: a CPU one always, a TensorRT one where there is a GPU."""
    if not backend_row(engine.info.backend).on_gpu:
        return True
    from .nvidia.driver import gpus

    return bool(gpus())


def flips(engine: Engine, model: ir.Model, spec: ModelSpec, options: BuildOptions) -> float:
    """The share of pixels whose class differs between the engine and ONNX Runtime on its model, on the sample frame."""
    frame = probe_frame(spec)
    plain = BuildOptions(batch=options.batch, threads=options.threads)
    reference = build(inline_functions(model), spec, REFERENCE, plain, model_sha256=file_sha256(model))
    with open_engine(reference, threads=options.threads) as runner:
        wanted = runner.run([frame])[0]
    with open_engine(engine, device=options.device, threads=options.threads) as runner:
        given = runner.run([frame])[0]
    return float(np.mean(given != wanted))


def probe_frame(spec: ModelSpec) -> Frame:
    """The frame that a fresh engine is tried on: the photograph that comes with the project, or a drawn street."""
    photograph = sample_photograph()
    return drawn_street(spec.size) if photograph is None else load_image(photograph)


def spec_of(model: ir.Model, name: str, said: Foreign | None = None) -> ModelSpec:
    """What a model is: its own stamp, or what was said about a model from elsewhere. Raises ModelError, naming what is missing."""
    spec = read_spec(model)
    said = said or Foreign()
    if spec is None:
        spec = foreign_spec(model, name, said)
        fix_size(model, spec)
        return spec
    if said.given():
        raise ModelError(f"{name} says itself what it is ({spec.name}).", "Leave --classes, --mean, --std and --input out.")
    _check_io(model, spec, name)
    return spec


def open_any(
    path: Path,
    *,
    device: int = 0,
    threads: int | None = None,
    lanes: int = 1,
    graphs: bool = True,
    strict: bool = False,
    said: Foreign | None = None,
) -> FrameRunner:
    """A plan, an ONNX model (through ONNX Runtime) or a network's safetensors (through PyTorch), opened as a Runner.

    `device`, `threads`, `lanes` and `graphs` are `runtime.open_engine`'s. Raises a DeployError that says why a file cannot be opened here.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return _open_network(path, threads)
    engine = engine_of(path, device=device, threads=threads, strict=strict, said=said)
    return open_engine(engine, device=device, threads=threads, lanes=lanes, graphs=graphs)


def engine_of(path: Path, *, device: int = 0, threads: int | None = None, strict: bool = False, said: Foreign | None = None) -> Engine:
    """A plan, or an ONNX model that ONNX Runtime is to run -> the Engine, not opened yet; see `open_any`."""
    path = Path(path)
    if path.suffix == ".onnx":
        return _build_in_memory(path, threads, said)
    loaded = load_engine(path)
    engine = complete_precision(loaded, device)
    if engine.info != loaded.info:
        with contextlib.suppress(OutputError):  # in a folder that cannot be written the layers are read again next time
            save_info(engine.info, path)
    if strict or engine.info.options.get("strict"):
        refuse_mismatch(engine)
    return engine


def require(package: str, extra: str, wanted_by: str) -> None:
    """Raises MissingPackageError with the pip command where a package of an extra is not installed."""
    import importlib.util

    if importlib.util.find_spec(package) is None:
        raise MissingPackageError(package, extra, wanted_by)


def _build_in_memory(path: Path, threads: int | None, said: Foreign | None) -> Engine:
    model = load_model(path)
    spec = spec_of(model, path.name, said)
    batch = spec.input.shape[0]
    sizes = (batch, batch, batch) if isinstance(batch, int) else (1, 1, 8)
    options = BuildOptions(batch=sizes, threads=threads)
    return build(inline_functions(model), spec, REFERENCE, options, model_sha256=file_sha256(model))


def _open_network(path: Path, threads: int | None) -> FrameRunner:
    require("torch", "export", "Opening a network's weights")
    from .backends.torch.run import open_network
    from .export.weights_choice import choose_network

    choice = choose_network(weights=path)
    spec = choice.recipe.spec(labels=choice.labels, weights=choice.origin, sha256=choice.sha256)
    return open_network(choice.network, spec, threads=threads)


def _check_io(model: ir.Model, spec: ModelSpec, name: str) -> None:
    """A stamp that does not fit the graph it stands on (an edited file) is refused."""
    inputs = [value.name for value in model.graph.inputs if value.name not in model.graph.initializers]
    outputs = [value.name for value in model.graph.outputs]
    if inputs != [spec.input.name] or outputs != [spec.output.name]:
        raise ModelError(
            f"{name} has the inputs {inputs} and outputs {outputs}; its stamp says {spec.input.name} and {spec.output.name}.",
            "Export it again.",
        )


__all__ = [
    "BuildError",
    "Exported",
    "Foreign",
    "Runner",
    "build_engine",
    "complete_precision",
    "engine_of",
    "export_model",
    "flips",
    "open_any",
    "prepare_model",
    "require",
    "spec_of",
]
