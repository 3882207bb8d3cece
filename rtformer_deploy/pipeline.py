"""The stages of a deployment: export, prepare, build, check. Code that needs several sub-packages is here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .agreement import Probes, check_flips, compare, compare_graphs, sample
from .backends import backend_row, build, build_on_provider, check_options, put_weights
from .backends.here import can_run_here, complete_precision, refuse_mismatch
from .errors import BuildError, CalibrationError, EngineError, ModelError
from .files import sha256
from .foreign.read import read_foreign
from .formats.external_model import ExternalModel
from .formats.model_file import check_ends, file_sha256, load_stamped, read_spec, stamp_notes, stamp_spec, weights_sha256
from .formats.model_spec import check_same_ends
from .formats.ranges import LEVELS, check_ranges, ranges_hash
from .graph.clean import LEAST_OPSET, name_nodes
from .graph.edit import clone
from .graph.finite import refuse_broken_weights
from .graph.foreign_qdq import settle_foreign_qdq
from .graph.fp16 import FP32_OPERATORS, to_fp16
from .graph.fp32 import holds_half, to_fp32
from .graph.functions import add_functions, inline_foreign_functions, inline_functions
from .graph.gather import flatten_gathers
from .graph.half_ends import half_ends
from .graph.head import set_head
from .graph.left_out import tell_bodies
from .graph.names import name_tensors, strip_traces
from .graph.notes import add_note, notes_of
from .graph.opset import raise_opset
from .graph.portable import is_written_out, put_back, write_out, written_out_notes
from .graph.qdq import SHORT_LEVELS, to_qdq
from .graph.quantised import quantised
from .graph.quick_plugins import use_quick_plugins
from .graph.simplify import simplify
from .graph.weight_list import check_fit, refit_of
from .image.frames import preprocess
from .lanes.supported import ON_A_CPU, lane_fault
from .machine import require, sums_eight_bits_exactly
from .runtime.session import rebuild_command
from .types import FOREIGN, QUANTISED, Backend, BuildOptions, Engine, EngineInfo, ModelSpec, Progress, Ranges, Refit, no_progress

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
    """A model -> a copy that its builder accepts: Q/DQ for INT8 and FP8, FP16 in the graph for TensorRT (strongly typed), no functions.

    `exclude` names what the Q/DQ leaves out, `fp32` what stays in FP32 on TensorRT (globs); on a CPU what is not INT8 is FP32 anyway. With
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
    if before is not None and options.precision not in QUANTISED:
        add_note(model, f"The model is quantised already ({before}); the engine keeps that.")
    if row.on_gpu and (options.precision in QUANTISED or (options.precision == "fp16" and before is not None)):
        raise_opset(model)
    if options.precision in QUANTISED:
        if ranges is None:
            what = f"{options.precision.upper()} needs the ranges of the model's tensors."
            raise CalibrationError(what, "Measure them: rtformer-deploy calibrate --images DIR.")
        placement = "tensorrt-fp8" if options.precision == "fp8" else row.placement
        tell_bodies(to_qdq(model, ranges, placement, exclude, weight_levels))
        if weight_levels < LEVELS:
            add_note(
                model, "This CPU has no VNNI and adds eight-bit products in 16 bits: the weights use 7 bits, so that no sum overflows."
            )
    if row.on_gpu and options.precision != "fp32":
        to_fp16(model, fp32, () if plugins else FP32_OPERATORS, probe)
        if options.io == "fp16":
            half_ends(model)
    if plugins:
        use_quick_plugins(model)
    inline_functions(model)
    has_qdq = any(node.op_type == "DequantizeLinear" for node in model.graph)  # by us or by another tool
    if has_qdq and not row.on_gpu:
        flatten_gathers(model)
    return name_nodes(model)  # what the passes have added may be called as a node of the file is


def _check_opset(model: ir.Model, options: BuildOptions) -> None:
    opset = model.opset_imports.get("", LEAST_OPSET)
    if options.precision in QUANTISED and opset < LEAST_OPSET:
        name = options.precision
        what = f"{name.upper()} needs a model of opset {LEAST_OPSET} or newer; this one has {opset}, and onnx cannot convert it."
        raise ModelError(what, f"Export it again with a newer opset, or build without --{name}.")


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

    INT8 and FP8 take `ranges` of these weights and this preprocessing, and leave the nodes that `keep` names (globs) in high precision;
    TensorRT computes those that `fp32` names in FP32. What FP8 changes is seen on the graph too, before the build. Raises BuildError,
    CalibrationError; with `strict` PrecisionError if the engine does not have the precision that was asked for.
    """
    probes = probes or Probes()
    engine = build_alone(
        model, spec, backend, options, ranges=ranges, keep=keep, fp32=fp32, strict=strict, probes=probes, progress=progress
    )
    return _compared(engine, model, options, probes, progress)


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
    probes: Probes | None = None,
    provider: str | None = None,
    progress: Progress = no_progress,
) -> Engine:
    """ONNX -> engine, as `build_engine` does it, but the engine is compared with nothing.

    With `provider`, a name in `backends.onnxruntime.providers`, the engine is ONNX Runtime's and runs on that plug-in execution provider;
    `backend` is then whose graphs the provider takes.
    """
    check_options(options, backend)
    graph = _graph_for(model, spec, backend, options, ranges, keep, fp32, probes or Probes(), progress)
    refit = refit_of(graph, keep, fp32) if options.strip else None
    if provider is None:
        engine = build(graph, spec, backend, options, progress, model_sha256=file_sha256(model))
    else:
        engine = build_on_provider(graph, spec, provider, options, file_sha256(model))
    strictness = {"strict": True} if strict else {}  # a plan that cannot be opened here is checked when it is first opened
    info = replace(engine.info, refit=refit, options={**engine.info.options, **strictness})
    return _noted(replace(engine, info=info), model, graph, options, ranges)


def refit_engine(
    engine: Engine,
    model: ir.Model,
    spec: ModelSpec,
    where: BuildOptions,
    *,
    ranges: Ranges | None = None,
    probes: Probes | None = None,
    progress: Progress = no_progress,
) -> Engine:
    """An engine that was built with --strip, and a model of the same architecture and size -> the engine with the model's weights.

    The model goes through the passes of the build, INT8 and FP8 with `ranges` of its own weights. Of `where` only the device and the
    threads count. Needs a GPU that the engine is for. Raises ModelError if the model does not fit, EngineError if TensorRT cannot put its
    weights in, and what `build_engine` raises.
    """
    info, known, probes = engine.info, check_refittable(engine.info), probes or Probes()
    mixed, plugins = (bool(info.options.get(name)) for name in ("mixed", "plugins"))
    options = replace(where, precision=info.precision.asked, batch=info.batch, io=info.io, mixed=mixed, plugins=plugins)
    check_same_ends(info.spec, spec)
    graph = _graph_for(model, spec, info.backend, options, ranges, known.keep, known.fp32, probes, progress)
    new, changed = check_fit(known, graph)
    plan = put_weights(engine, graph, known.weights, changed, options.device)
    progress("TensorRT: put the weights in", 1, 1)
    info = replace(info, spec=spec, plan_sha256=sha256(plan), model_sha256=file_sha256(model), refit=new, flips=None, flips_on={}, notes=())
    return _compared(_noted(Engine(plan, info), model, graph, options, ranges), model, options, probes, progress)


def check_refittable(info: EngineInfo) -> Refit:
    """What `refit_engine` must know of an engine. Raises EngineError if its weights cannot be exchanged."""
    if info.refit is None:
        strips = "strip" in backend_row(info.backend).options
        hint = (
            f"Build it so: {rebuild_command(info)} --strip"
            if strips
            else "Build an engine of the other model: rtformer-deploy build-engine."
        )
        raise EngineError("The weights of this engine cannot be exchanged, as it was not built with --strip.", hint)
    return info.refit


def _graph_for(
    model: ir.Model,
    spec: ModelSpec,
    backend: Backend,
    options: BuildOptions,
    ranges: Ranges | None,
    keep: Sequence[str],
    fp32: Sequence[str],
    probes: Probes,
    progress: Progress,
) -> ir.Model:
    """What a builder gets for a model: see `prepare_model`. What FP8 changes is one of its notes."""
    used = ranges if options.precision in QUANTISED else None
    if used is not None:
        check_ranges(used, spec, weights_sha256(model, spec))
    graph = prepare_model(model, backend, options, used, keep, fp32, **preparation(spec, backend))
    if options.precision == "fp8":
        for note in compare_graphs(graph, model, spec, options, probes, progress):
            add_note(graph, note)
    return graph


def _noted(engine: Engine, model: ir.Model, graph: ir.Model, options: BuildOptions, ranges: Ranges | None) -> Engine:
    """A fresh engine of a model -> the same with what a person should know, and its precision as far as it can be opened here."""
    notes = (
        *engine.info.notes,
        *notes_of(model),
        *notes_of(graph),
        *stamp_notes(model),
        *(written_out_notes(model) or written_out_notes(graph)),
        *opening_notes(engine.info.spec, engine.info.backend),
    )
    used = None if ranges is None or options.precision not in QUANTISED else ranges_hash(ranges)
    engine = complete_precision(replace(engine, info=replace(engine.info, ranges_sha256=used, notes=notes)), options.device)
    if engine.info.options.get("strict"):
        refuse_mismatch(engine)
    return engine


def _compared(engine: Engine, model: ir.Model, options: BuildOptions, probes: Probes, progress: Progress) -> Engine:
    """A fresh engine of a model -> the same with how many pixels change class, if it runs here. Raises GateError above a bound."""
    if can_run_here(engine) and not opening_notes(engine.info.spec, engine.info.backend):
        found = compare(engine, model, options, probes, progress)
        notes = (*engine.info.notes, *found.notes)
        engine = replace(engine, info=replace(engine.info, flips=found.worst, flips_on=found.listed(), notes=notes))
    check_flips(engine.info.flips, probes.max_flips)
    return engine


def opening_notes(spec: ModelSpec, backend: Backend) -> tuple[str, ...]:
    """What to know before an engine of a spec is built with a backend: that it cannot be opened yet; empty if it can."""
    fault = lane_fault(spec) if backend_row(backend).on_gpu else None
    return () if fault is None else (f"The engine can be built, but not opened: {fault} {ON_A_CPU}",)


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
    check_ends(model, spec, name)
    return spec
