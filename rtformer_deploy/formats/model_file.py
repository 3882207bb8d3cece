"""ONNX bytes to `onnx_ir.Model` and back, with the ModelSpec that travels in `metadata_props`."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from ..errors import ModelError, first_line, shorten
from ..files import holds, read_bytes, sha256, write_atomic
from ..types import ModelSpec
from .bounds import check_bounds, check_bytes
from .documents import DocumentError
from .engine_file import PLAN_SUFFIXES, sidecar
from .external_data import pull_in, tensors_of
from .external_model import tensor_spec
from .other_files import kind_of_file
from .sparse import fill_sparse
from .spec_file import parse_spec, spec_text
from .subgraphs import bodies

SPEC_KEY = "rtformer_deploy.spec"
_OWN_DOMAINS = ("", "ai.onnx")
_OLDER = "Install a newer onnx, or export the model with an older one."
#: The hash of a model's file in `ir.Model.meta`, which stays in memory.
_FILE_KEY = "rtformer_deploy.file_sha256"


def load_model(path: Path) -> ir.Model:
    """An ONNX file, with the data files beside it, as an onnx_ir.Model.

    Raises ModelError if it is missing, empty, cut short, not an ONNX model, or larger than is read.
    """
    return model_from(Path(path), read_bytes(Path(path), ModelError, "an ONNX model"))


def is_model(path: Path) -> bool:
    """Whether a file is taken for an ONNX model: by its name, or, without a sidecar beside it, by its first byte."""
    suffix = path.suffix.lower()
    if suffix in PLAN_SUFFIXES or os.path.isfile(sidecar(path)):
        return False
    return suffix == ".onnx" or holds(path, b"\x08", b"")


def load_stamped(path: Path) -> ir.Model | None:
    """An ONNX file that carries a ModelSpec as a model, as `load_model`; None for another one, which is hardly looked at."""
    data = read_bytes(Path(path), ModelError, "an ONNX model")
    model = model_from(Path(path), data) if SPEC_KEY.encode() in data else None
    return model if model is not None and SPEC_KEY in model.metadata_props else None


def model_from(path: Path, data: bytes) -> ir.Model:
    """The bytes that were read from an ONNX file -> its model, as `load_model`; data files are looked for beside `path`."""
    proto = _parse(data, str(path))
    digest = hashlib.sha256(data)
    pull_in(proto, path, len(data), digest.update)
    fill_sparse(proto, str(path))
    model = _checked(proto, str(path))
    model.meta[_FILE_KEY] = digest.hexdigest()
    return model


def parse_model(data: bytes, name: str = "the model") -> ir.Model:
    """ONNX bytes, with all weights in them, as an onnx_ir.Model; `name` is used in error messages. Raises ModelError."""
    proto = _parse(data, name)
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors_of(proto)):
        raise ModelError(f"{name} keeps weights in other files, and nobody knows where those are.", "Open it by its path.")
    fill_sparse(proto, name)
    return _checked(proto, name)


def _parse(data: bytes, name: str) -> onnx.ModelProto:
    kind = kind_of_file(data)
    if kind is not None:
        raise ModelError(f"{name} is not an ONNX model: it is {kind[0]}.", kind[1])
    check_bytes(data, name)
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise ModelError(f"{name} is not an ONNX model, or was cut short.", "Copy it again, or export it again.") from error
    if not proto.graph.node or not proto.graph.output:
        raise ModelError(f"{name} is not an ONNX model: it holds no graph.")
    check_bounds(proto, name)
    _check_versions(proto, name)
    return proto


def _check_versions(proto: onnx.ModelProto, name: str) -> None:
    """Raises ModelError if a file is of a newer ONNX than is installed here."""
    opset = max((each.version for each in proto.opset_import if each.domain in _OWN_DOMAINS), default=0)
    newest = onnx.defs.onnx_opset_version()
    if opset > newest:
        raise ModelError(f"{name} has opset {opset}; the installed onnx knows those up to {newest}.", _OLDER)
    if proto.ir_version > onnx.IR_VERSION:
        raise ModelError(f"{name} has IR version {proto.ir_version}; the installed onnx reads those up to {onnx.IR_VERSION}.", _OLDER)


def _checked(proto: onnx.ModelProto, name: str) -> ir.Model:
    try:
        try:
            _check(proto)
            return ir.serde.deserialize_model(proto)
        except onnx.checker.ValidationError as error:
            if "topologically sorted" not in str(error):
                raise
            reader, wanted = _dangling(proto.graph, frozenset()) or ("", "")
            if wanted:
                raise ModelError(f"{name} is not a valid ONNX model: {reader} reads {shorten(wanted)}, which nothing gives.") from error
        model = ir.serde.deserialize_model(proto)
        model.graph.sort()  # ONNX Runtime takes nodes in any order
        _check(ir.serde.serialize_model(model))
        return model
    except ModelError:
        raise
    except Exception as error:  # the checker and the deserialiser may raise anything on a bad file
        raise ModelError(f"{name} is not a valid ONNX model: {first_line(error)}") from error


def _dangling(graph: onnx.GraphProto, outside: frozenset[str]) -> tuple[str, str] | None:
    """The first node, in words, that reads a tensor of which neither the graph nor the one around it has any; and that tensor."""
    known = outside.union(
        (value.name for part in (graph.input, graph.initializer) for value in part),
        (output for node in graph.node for output in node.output),
    )
    for node in graph.node:
        wanted = next((each for each in node.input if each and each not in known), None)
        if wanted is not None:
            return f"the node {shorten(node.name)} ({node.op_type})" if node.name else f"a node {node.op_type}", wanted
        for body in bodies(node):
            found = _dangling(body, known)
            if found is not None:
                return found
    return None


def _check(proto: onnx.ModelProto) -> None:
    with _declaring_shapes(proto.graph):
        onnx.checker.check_model(proto)


@contextlib.contextmanager
def _declaring_shapes(graph: onnx.GraphProto) -> Iterator[None]:
    """Gives inputs and outputs without a shape one while the checker looks, which asks for it."""
    kinds = [value.type.tensor_type for value in (*graph.input, *graph.output) if value.type.HasField("tensor_type")]
    without = [kind for kind in kinds if not kind.HasField("shape")]
    for kind in without:
        kind.shape.SetInParent()
    try:
        yield
    finally:
        for kind in without:
            kind.ClearField("shape")


def serialize_model(model: ir.Model) -> bytes:
    """An onnx_ir.Model as ONNX bytes."""
    return bytes(ir.serde.serialize_model(model).SerializeToString())


def save_model(model: ir.Model, path: Path) -> None:
    """Writes the model as one ONNX file, whole or not at all."""
    data = serialize_model(model)
    write_atomic(Path(path), data)
    model.meta[_FILE_KEY] = sha256(data)


def file_sha256(model: ir.Model) -> str:
    """A model -> the SHA-256 of the file that it was last read from or saved to, or else of what `save_model` would write.

    If weights were in files beside it, the hash goes on over them. Call it before a pass changes the model.
    """
    return str(model.meta.get(_FILE_KEY) or sha256(serialize_model(model)))


def weights_sha256(model: ir.Model, spec: ModelSpec) -> str:
    """A model and its spec -> the hash of its weights and configuration. Ranges and recipes store it to say which model they belong to.

    It does not depend on the size and the batch. It is the spec's hash; the spec of a model from elsewhere has none, then it is the hash
    of the graph: its operators, weights and names.
    """
    return spec.sha256 or _graph_sha256(model)


def _graph_sha256(model: ir.Model) -> str:
    """A model -> the hash of what it computes. Shapes do not count, nor do remarks about the model and who made it."""
    proto = ir.serde.serialize_model(model)
    for field in ("ir_version", "producer_name", "producer_version", "domain", "model_version", "doc_string", "metadata_props"):
        proto.ClearField(field)
    for field in ("value_info", "doc_string", "metadata_props"):
        proto.graph.ClearField(field)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.ClearField("shape")
    return sha256(proto.SerializeToString(deterministic=True))


def stamp_spec(model: ir.Model, spec: ModelSpec) -> None:
    """Puts the ModelSpec into the model's metadata_props."""
    model.metadata_props[SPEC_KEY] = spec_text(spec)


def read_spec(model: ir.Model) -> ModelSpec | None:
    """The ModelSpec a model carries; None if it comes from elsewhere. Raises ModelError if it is there but damaged."""
    stamp = _read_stamp(model)
    return None if stamp is None else stamp[0]


def stamp_notes(model: ir.Model) -> tuple[str, ...]:
    """What a person should know about the ModelSpec that a model carries: that it says more than this version reads. Raises ModelError."""
    note = (_read_stamp(model) or (None, None))[1]
    return () if note is None else (f"The model's {SPEC_KEY} is of {note}.",)


def check_ends(model: ir.Model, spec: ModelSpec, name: str) -> None:
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


def _read_stamp(model: ir.Model) -> tuple[ModelSpec, str | None] | None:
    text = model.metadata_props.get(SPEC_KEY)
    if text is None:
        return None
    try:
        return parse_spec(text)
    except DocumentError as error:
        raise ModelError(f"The model's {SPEC_KEY} cannot be read: {error}.", "Export the model again.") from error
