"""The stages of a deployment: export, prepare, build, check. Code that needs several sub-packages is here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .agreement import Probes, check_flips, compare, sample
from .backends import backend_row, build, build_on_provider
from .errors import BuildError, CalibrationError, GateError, ModelError, PrecisionError
from .foreign.read import read_foreign
from .formats.external_model import ExternalModel, tensor_spec
from .formats.model_file import file_sha256, load_stamped, read_spec, stamp_notes, stamp_spec, weights_sha256
from .formats.ranges import LEVELS, check_ranges, ranges_hash
from .graph.clean import LEAST_OPSET
from .graph.edit import clone
from .graph.finite import refuse_broken_weights
from .graph.foreign_qdq import settle_foreign_qdq
from .graph.fp16 import FP32_OPERATORS, to_fp16
from .graph.fp32 import holds_half, to_fp32
from .graph.functions import add_functions, inline_foreign_functions, inline_functions
from .graph.gather import flatten_gathers
from .graph.head import set_head
from .graph.names import name_tensors, strip_traces
from .graph.notes import add_note, notes_of
from .graph.opset import raise_opset
from .graph.portable import is_written_out, put_back, write_out, written_out_notes
from .graph.qdq import SHORT_LEVELS, to_qdq
from .graph.quantised import quantised
from .graph.quick_plugins import use_quick_plugins
from .graph.simplify import simplify
from .image.frames import preprocess
from .lanes.supported import ON_A_CPU, lane_fault
from .machine import require, sums_eight_bits_exactly
from .types import FOREIGN, Backend, BuildOptions, Engine, ModelSpec, PrecisionFound, Progress, Ranges, no_progress

if TYPE_CHECKING:
    from torch import nn

    from .export.parity import Parity


@dataclass(frozen=True, slots=True)
class Exported:
    """An exported model, what it is, and how well it agrees with the network."""

    model: ir.Model
    spec: ModelSpec
    parity: Parity


def export_model(network: nn.Module, spec: ModelSpec, opset: int | None = None, *, portable: bool = False) -> Exported:
    """Network -> ONNX with named tensors and recognisable attention, simplified, stamped, and checked against the network.

    With `portable` the attention is written out as plain operators, for tools that do not run ONNX functions. Raises ModelError if the
    exported model differs, naming the first tensor that does.
    """
    require("torch", "export", "Exporting")
    require("onnxscript", "export", "Exporting")
    from .export.export import DEFAULT_OPSET, export_network
    from .export.parity import check_export

    model = strip_traces(name_tensors(export_network(network, spec, opset or DEFAULT_OPSET)), str(spec.arch["name"]))
    model = set_head(simplify(add_functions(model)), spec)
    stamp_spec(model, spec)
    if portable:
        write_out(model)
    return Exported(model, spec, check_export(network, model, spec))


def prepare_model(
    model: ir.Model,
    backend: Backend,
    options: BuildOptions,
    ranges: Ranges | None = None,
    exclude: Sequence[str] = (),
    fp32: Sequence[str] = (),
    probe: NDArray[np.float32] | None = None,
    weight_levels: int = LEVELS,
) -> ir.Model:
    """A model -> a copy that its builder accepts: Q/DQ for INT8, FP16 in the graph for TensorRT (strongly typed), no functions.

    `exclude` names what INT8 leaves out, `fp32` what stays in FP32 on TensorRT (globs); on a CPU what is not INT8 is FP32 anyway. With
    `probe` (see `probe_input`), what FP16 cannot hold of it stays in FP32 too; `weight_levels` is as in `to_qdq`. The model itself does
    not change: it is cloned once, here, and the passes change the clone and leave notes on it. Raises ModelError, among others if a
    weight is NaN.
    """
    row = backend_row(backend)
    _check_opset(model, options)
    plugins = options.plugins and row.plugins  # the other builders refuse them
    if plugins and is_written_out(model):
        what = "--plugins are for the nodes of the domain rtformer, and in a portable model these are written out."
        raise BuildError(what, "Export the model without --portable.")
    refuse_broken_weights(model)
    model = inline_foreign_functions(put_back(clone(model)))
    if holds_half(model):
        to_fp32(model)
    settle_foreign_qdq(model, row.on_gpu)
    before = quantised(model)
    if before is not None and options.precision != "int8":
        add_note(model, f"The model is quantised already ({before}); the engine keeps that.")
    if row.on_gpu and (options.precision == "int8" or (options.precision == "fp16" and before is not None)):
        raise_opset(model)
    if options.precision == "int8":
        if ranges is None:
            raise CalibrationError("INT8 needs the ranges of the model's tensors.", "Measure them: rtformer-deploy calibrate --images DIR.")
        to_qdq(model, ranges, row.placement, exclude, weight_levels)
        if weight_levels < LEVELS:
            add_note(
                model, "This CPU has no VNNI and adds eight-bit products in 16 bits: the weights use 7 bits, so that no sum overflows."
            )
    if row.on_gpu and options.precision != "fp32":
        to_fp16(model, fp32, () if plugins else FP32_OPERATORS, probe)
    if plugins:
        use_quick_plugins(model)
    inline_functions(model)
    has_qdq = any(node.op_type == "DequantizeLinear" for node in model.graph)  # by us or by another tool
    if has_qdq and not row.on_gpu:
        flatten_gathers(model)
    return model


def _check_opset(model: ir.Model, options: BuildOptions) -> None:
    opset = model.opset_imports.get("", LEAST_OPSET)
    if options.precision == "int8" and opset < LEAST_OPSET:
        what = f"INT8 needs a model of opset {LEAST_OPSET} or newer; this one has {opset}, and onnx cannot convert it."
        raise ModelError(what, "Export it again with a newer opset, or build without --int8.")


class Preparation(TypedDict):
    """What `prepare_model` is told about the picture and the machine."""

    probe: NDArray[np.float32] | None
    weight_levels: int


def preparation(spec: ModelSpec, backend: Backend) -> Preparation:
    """What suits a model and a backend on this machine: a probe for a GPU's FP16, and weights whose sums do not overflow.

    A CPU that may overflow gets fewer levels of INT8 weights with OpenVINO, which has no other way to avoid it; ONNX Runtime has kernels
    for it. Our own models keep all levels, with which their accuracy was measured.
    """
    foreign = spec.arch.get("name") == FOREIGN
    short = backend == "openvino" and foreign and not sums_eight_bits_exactly()
    return {"probe": probe_input(spec) if backend_row(backend).on_gpu else None, "weight_levels": SHORT_LEVELS if short else LEVELS}


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
    probes: Probes | None = None,
    progress: Progress = no_progress,
) -> Engine:
    """ONNX -> engine. If this machine can run the engine, its labels are compared with those of ONNX Runtime on `model`: see `agreement`.

    INT8 takes `ranges` of these weights and this preprocessing, and leaves the nodes that `keep` names (globs) in high precision; TensorRT
    computes those that `fp32` names in FP32. Raises BuildError, CalibrationError; with `strict` PrecisionError if the engine does not
    have the precision that was asked for.
    """
    probes = probes or Probes()
    engine = build_alone(model, spec, backend, options, ranges=ranges, keep=keep, fp32=fp32, strict=strict, progress=progress)
    if can_run_here(engine) and not opening_notes(spec, backend):
        found = compare(engine, model, options, probes, progress)
        notes = (*engine.info.notes, *found.notes)
        engine = replace(engine, info=replace(engine.info, flips=found.worst, flips_on=found.listed(), notes=notes))
    check_flips(engine.info.flips, probes.max_flips)
    return engine


def build_alone(
    model: ir.Model,
    spec: ModelSpec,
    backend: Backend,
    options: BuildOptions,
    *,
    ranges: Ranges | None = None,
    keep: Sequence[str] = (),
    fp32: Sequence[str] = (),
    strict: bool = False,
    provider: str | None = None,
    progress: Progress = no_progress,
) -> Engine:
    """ONNX -> engine, as `build_engine` does it, but compared with nothing.

    With `provider`, a name in `backends.onnxruntime.providers`, the engine is ONNX Runtime's and runs on that plug-in execution provider;
    `backend` is then whose graphs the provider takes.
    """
    if options.precision != "int8":
        ranges = None
    if ranges is not None:
        check_ranges(ranges, spec, weights_sha256(model, spec))
    prepared = prepare_model(model, backend, options, ranges, keep, fp32, **preparation(spec, backend))
    if provider is None:
        engine = build(prepared, spec, backend, options, progress, model_sha256=file_sha256(model))
    else:
        engine = build_on_provider(prepared, spec, provider, options, file_sha256(model))
    strictness = {"strict": True} if strict else {}  # a plan that cannot be opened here is checked when it is first opened
    info = replace(
        engine.info,
        ranges_sha256=None if ranges is None else ranges_hash(ranges),
        options={**engine.info.options, **strictness},
        notes=(
            *engine.info.notes,
            *notes_of(prepared),
            *stamp_notes(model),
            *(written_out_notes(model) or written_out_notes(prepared)),
            *opening_notes(spec, engine.info.backend),
        ),
    )
    engine = complete_precision(replace(engine, info=info), options.device)
    if strict:
        refuse_mismatch(engine)
    return engine


def opening_notes(spec: ModelSpec, backend: Backend) -> tuple[str, ...]:
    """What to know before an engine of a spec is built with a backend: that it cannot be opened yet; empty if it can."""
    fault = lane_fault(spec) if backend_row(backend).on_gpu else None
    return () if fault is None else (f"The engine can be built, but not opened: {fault} {ON_A_CPU}",)


def complete_precision(engine: Engine, device: int = 0) -> Engine:
    """If an engine's precision is only "requested" and its layers can be read here -> the engine with the precision of its layers."""
    if not backend_row(engine.info.backend).on_gpu or engine.info.precision.state != "requested" or not can_run_here(engine):
        return engine
    from .backends.tensorrt.run import precision_after_open

    precision: PrecisionFound = precision_after_open(engine, device)
    return replace(engine, info=replace(engine.info, precision=precision))


def refuse_mismatch(engine: Engine) -> None:
    """Raises PrecisionError if the engine's layers do not have the precision that was asked for."""
    precision = engine.info.precision
    if precision.state == "mismatch":
        raise PrecisionError(
            f"--strict: {precision.asked} was asked for and is not what the engine has: {precision.detail or dict(precision.layers)}.",
            "Leave --strict out to build it all the same.",
        )


def can_run_here(engine: Engine) -> bool:
    """Whether this machine can open the engine: a CPU one always, a TensorRT one if there is a GPU."""
    return _runs_here(engine.info.backend)


def check_can_compare(backend: Backend, max_flips: float | None) -> None:
    """Raises GateError if there is a bound on what changes, and a backend's engines cannot run here. Call it before a long build."""
    if max_flips is not None and not _runs_here(backend):
        what = f"--max-flips: an engine of {backend} cannot run on this machine, so it cannot be compared with ONNX Runtime."
        raise GateError(what, "Build it on a machine with an NVIDIA GPU, or leave --max-flips out.")


def _runs_here(backend: Backend) -> bool:
    if not backend_row(backend).on_gpu:
        return True
    from .nvidia.driver import gpus

    return bool(gpus())


def probe_input(spec: ModelSpec) -> NDArray[np.float32]:
    """The sample frame as the model takes it: (N, 3, H, W), N being the batch (1 if it is free)."""
    batch = spec.input.shape[0]
    image = preprocess(sample(spec), spec.size, spec.mean, spec.std, spec.resize, corners=spec.resize_corners)
    return np.repeat(image[None], batch if isinstance(batch, int) else 1, 0)


def read_model(path: Path, external: ExternalModel | None = None, backend: Backend | None = None) -> tuple[ir.Model, ModelSpec]:
    """An ONNX file -> its model and its ModelSpec: the one it carries, or, for a model from elsewhere, one made of `external`.

    Such a model is tried first, and with the `backend` that is to build it, and comes in order: see `foreign`. Raises ModelError,
    naming what is missing or wrong.
    """
    external = external or ExternalModel()
    model = load_stamped(path)
    if model is None:
        return read_foreign(path, external, backend)
    put_back(model)
    spec = spec_of(model, path.name)
    if external.is_set():
        what = f"{path.name} already carries its metadata ({spec.name})."
        raise ModelError(what, "Leave --classes, --mean, --std, --input, --output-name and --threshold out.")
    return model, spec


def spec_of(model: ir.Model, name: str) -> ModelSpec:
    """The ModelSpec that a model carries. Raises ModelError if there is none, or it does not fit the graph."""
    spec = read_spec(model)
    if spec is None:
        raise ModelError(f"{name} was not exported by rtformer-deploy: it carries no metadata.", "Read it with pipeline.read_model.")
    _check_io(model, spec, name)
    return spec


def _check_io(model: ir.Model, spec: ModelSpec, name: str) -> None:
    """Raises ModelError if the metadata does not fit the graph, as in an edited file."""
    inputs = [value.name for value in model.graph.inputs if value.name not in model.graph.initializers]
    outputs = [value.name for value in model.graph.outputs]
    if inputs != [spec.input.name] or outputs != [spec.output.name]:
        raise ModelError(
            f"{name} has the inputs {inputs} and outputs {outputs}; its stamp says {spec.input.name} and {spec.output.name}.",
            "Export it again.",
        )
    source, target = (tensor_spec(value) for value in (_feed(model), model.graph.outputs[0]))
    for found, told in ((source, spec.input), (target, spec.output)):
        if not _same_shape(found.shape, told.shape):
            raise ModelError(f"{name}: {found.name} is {_text(found.shape)}; its stamp says {_text(told.shape)}.", "Export it again.")
    count = target.shape[1] if len(target.shape) == 4 else None
    if isinstance(count, int) and count != len(spec.classes):
        raise ModelError(f"{name} gives {count} classes; its stamp names {len(spec.classes)}.", "Export it again.")


def _feed(model: ir.Model) -> ir.Value:
    return next(value for value in model.graph.inputs if value.name not in model.graph.initializers)


def _same_shape(found: Sequence[int | str], told: Sequence[int | str]) -> bool:
    """Whether two shapes agree; an open dimension of the graph may be any size, but a fixed one is the same in both."""
    return len(found) in (0, len(told)) and all(not isinstance(own, int) or own == other for own, other in zip(found, told, strict=False))


def _text(shape: Sequence[int | str]) -> str:
    return "x".join(map(str, shape))
