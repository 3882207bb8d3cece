"""A file to what it holds: an engine plan, an ONNX model or safetensors weights, as facts ready for JSON."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import DeployError, EngineError, ModelError, WeightsError
from ..files import PLAN_BYTES, read_bytes, sha256
from ..formats.documents import DocumentError, parse_json
from ..formats.engine_file import PLAN_SUFFIXES, load_info, sidecar
from ..formats.preprocessing import prepared
from ..formats.safetensors_file import check_whole, is_weights, read_header
from ..types import EngineInfo, ModelSpec, TensorSpec

if TYPE_CHECKING:
    import onnx_ir as ir

Kind = Literal["engine", "onnx", "weights"]


@dataclass(frozen=True, slots=True)
class Description:
    """What a file holds: `facts` in sections, JSON values only; `problem` is what is wrong with the file, if anything."""

    kind: Kind
    facts: Mapping[str, Any]
    problem: DeployError | None = None

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, **self.facts, "problem": None if self.problem is None else str(self.problem)}


def describe(path: Path) -> Description:
    """A file of one of three kinds to a Description; the content decides if the name does not.

    A plan without its sidecar raises EngineError, a file of another kind ModelError or WeightsError. A plan whose bytes changed is
    described all the same, with a `problem`.
    """
    data = read_bytes(path, ModelError, "a model, an engine or weights", PLAN_BYTES)
    if os.path.isfile(sidecar(path)) or path.suffix in PLAN_SUFFIXES:
        return _engine(path, data)
    if _is_safetensors(data) or is_weights(path):
        return Description("weights", {"file": _file(path, data), **_weights(path)})
    if data.startswith(b"\x80") or data.startswith(b"PK\x03\x04") or path.suffix in {".pdparams", ".pth", ".pt"}:
        raise WeightsError(
            f"{path} is a pickle or a PyTorch file, which is not opened to look at it.", "Run: rtformer-deploy import-weights"
        )
    return _onnx(path, data)


def _file(path: Path, data: bytes) -> dict[str, Any]:
    return {"path": str(path), "size_mb": round(len(data) / 2**20, 3), "sha256": sha256(data)}


def _engine(path: Path, data: bytes) -> Description:
    info = load_info(path)
    file = _file(path, data)
    problem = None
    if file["sha256"] != info.plan_sha256:
        problem = EngineError(
            f"{path} is not the plan that {sidecar(path).name} describes: its SHA-256 differs, so it was changed, cut short or mixed up.",
            "Copy both files again, or build it again: rtformer-deploy build-engine.",
        )
    file["sha256_check"] = "differs from the one in the sidecar" if problem else "as built"
    facts = {
        "file": file,
        "engine": _engine_facts(info),
        "precision": _precision(info),
        "candidates": _candidates(info),
        "tensors": _tensors(info.inputs, info.outputs),
        "model": _spec(info.spec),
    }
    return Description("engine", facts, problem)


def _engine_facts(info: EngineInfo) -> dict[str, Any]:
    smallest, usual, largest = info.batch
    return {
        "backend": info.backend,
        "builder": info.builder_version,
        "gpu": info.gpu or "none, runs on a CPU",
        "batch": str(largest) if smallest == largest else f"{smallest} to {largest}, tuned for {usual}",
        "opens_here": _opens_here(info),
        "model_sha256": info.model_sha256,
        "ranges_sha256": info.ranges_sha256,
        **_refit_facts(info),
        "options": {key: value for key, value in info.options.items() if value is not None},
        "notes": list(info.notes),
    }


def _refit_facts(info: EngineInfo) -> dict[str, str]:
    """What the plan of an engine that was built with --strip holds of weights."""
    if info.refit is None:
        return {}
    count = len(info.refit.weights)
    return {"weights": f"none: refit puts {count} in" if info.refit.stripped else f"{count}, which refit can exchange"}


def _opens_here(info: EngineInfo) -> str:
    """Whether this machine has what the plan needs, in words; the plan itself is not opened."""
    from ..backends import check_engine

    try:
        check_engine(info)
    except DeployError as error:
        return f"no: {error}"
    return "yes"


def _precision(info: EngineInfo) -> dict[str, Any]:
    precision = info.precision
    flips = "not measured" if info.flips is None else f"{info.flips:.4%} of the pixels change class against ONNX Runtime"
    return {
        "asked": precision.asked,
        "found": precision.state,
        "layers": dict(precision.layers),
        "detail": precision.detail,
        "flips": flips,
        "flips_on": {name: f"{share:.4%}" for name, share in info.flips_on.items()},
    }


def _candidates(info: EngineInfo) -> dict[str, str]:
    """What `build-engine --fastest` chose from; empty if the precision was asked for."""
    figures = {
        each.precision: (
            "not built" if each.ms is None else f"{each.ms:.2f} ms",
            "pixels not compared" if each.flips is None else f"{each.flips:.4%} of the pixels change class",
        )
        for each in info.candidates
    }
    return {each.precision: f"{', '.join(figures[each.precision])}: {each.state}, {each.why}" for each in info.candidates}


def _tensors(inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec]) -> dict[str, str]:
    tensors = [("input", tensor) for tensor in inputs] + [("output", tensor) for tensor in outputs]
    return {f"{way} {tensor.name}": f"{tensor.dtype} {'x'.join(map(str, tensor.shape))}" for way, tensor in tensors}


def _spec(spec: ModelSpec) -> dict[str, Any]:
    height, width = spec.size
    return {
        "name": spec.name,
        "architecture": dict(spec.arch),
        "classes": f"{len(spec.classes)}: {', '.join(spec.classes)}",
        "input_size": f"{height}x{width}",
        "head": spec.head,
        **{name: list(value) if isinstance(value, tuple) else value for name, value in prepared(spec).items()},
        "weights": spec.weights,
        "weights_sha256": spec.sha256,
    }


def _onnx(path: Path, data: bytes) -> Description:
    from ..formats.external_model import tensor_spec
    from ..formats.model_file import file_sha256, model_from, read_spec, stamp_notes

    model = model_from(path, data)
    spec = read_spec(model)
    nodes = list(model.graph.all_nodes())
    file = _file(path, data)
    if file_sha256(model) != file["sha256"]:
        file["sha256_with_data_files"] = file_sha256(model)
    facts: dict[str, Any] = {
        "file": file,
        "graph": _graph(model, nodes, spec),
        "tensors": _tensors(map(tensor_spec, model.graph.inputs), map(tensor_spec, model.graph.outputs)),
        "nodes": dict(sorted(Counter(_operator(node) for node in nodes).items(), key=lambda item: (-item[1], item[0]))),
        "initializers": _initializers(model),
        "functions": {f"{function.domain}::{function.name}": f"{len(function)} nodes" for function in model.functions.values()},
        "model": {"spec": "none: a model from elsewhere"} if spec is None else {**_spec(spec), "notes": list(stamp_notes(model))},
    }
    return Description("onnx", facts)


def _graph(model: ir.Model, nodes: list[ir.Node], spec: ModelSpec | None) -> dict[str, Any]:
    producer = " ".join(filter(None, (model.producer_name, model.producer_version)))
    from ..graph.quantised import quantised

    return {
        "producer": producer or None,
        "ir_version": model.ir_version,
        "opset": {domain or "ai.onnx": version for domain, version in model.opset_imports.items()},
        "node_count": len(nodes),
        "custom_nodes": sum(node.domain not in ("", "ai.onnx") for node in nodes),
        "form": _form(model, spec),
        "quantised": quantised(model) or "no",
    }


def _form(model: ir.Model, spec: ModelSpec | None) -> str:
    """Which tools can open the file, as far as that depends on its functions."""
    from ..graph.portable import is_written_out

    if model.functions:
        domains = ", ".join(sorted({function.domain for function in model.functions.values()}))
        portable = "" if spec is None else "; for others, export it with --portable"
        return f"with functions of {domains}: for tools that run ONNX functions, such as ONNX Runtime and TensorRT{portable}"
    domains = ", ".join(sorted({node.domain for node in model.graph.all_nodes()} - {"", "ai.onnx"}))
    if domains:
        return f"with operators of {domains}, which are not ONNX's own"
    return "portable: plain operators alone" + (", the attention is written out" if is_written_out(model) else "")


def _operator(node: ir.Node) -> str:
    return f"{node.domain}::{node.op_type}" if node.domain else node.op_type


def _initializers(model: ir.Model) -> dict[str, Any]:
    """Count, parameters and size of the stored tensors, then parameters by precision."""
    parameters: Counter[str] = Counter()
    size = 0
    tensors = [value.const_value for value in model.graph.initializers.values() if value.const_value is not None]
    for tensor in tensors:
        parameters[tensor.dtype.numpy().name] += tensor.size
        size += tensor.nbytes
    return {"count": len(tensors), "values": parameters.total(), "size_mb": round(size / 2**20, 3), "values_by_type": dict(parameters)}


def _is_safetensors(data: bytes) -> bool:
    """Eight bytes of length, then a JSON object of that length."""
    length = int.from_bytes(data[:8], "little")
    return 2 <= length <= len(data) - 8 and data[8:9] == b"{"


def _weights(path: Path) -> dict[str, Any]:
    """A safetensors file's parameters, what it says they are, and its other metadata, read from its header."""
    from ..formats.model_file import SPEC_KEY
    from ..formats.weights_file import recipe_in

    header = read_header(path)
    check_whole(path)
    metadata, shapes = header.metadata, header.tensors
    counts: Counter[str] = Counter()
    for dtype, shape in shapes.values():
        counts[dtype] += _product(shape)
    recipe = recipe_in(metadata, str(path))
    return {
        "weights": {"tensors": len(shapes), "parameters": counts.total(), "parameters_by_type": dict(counts)},
        "model": {"spec": "none"} if recipe is None else {**_spec(recipe.spec()), "dataset": recipe.dataset},
        "metadata": {key: _json_or_text(value) for key, value in metadata.items() if key != SPEC_KEY},
    }


def _product(shape: Iterable[int]) -> int:
    result = 1
    for size in shape:
        result *= size
    return result


def _json_or_text(value: str) -> Any:
    try:
        return parse_json(value)
    except DocumentError:
        return value
