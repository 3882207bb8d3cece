"""Weights that an ONNX file keeps in other files ("external data") -> the same model with the weights in it.

They are looked for in the model's own folder and nowhere else: a location is a relative path, and a link may not lead out of the folder.
See https://onnx.ai/onnx/repo-docs/ExternalData.html.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path, PureWindowsPath

import onnx
import onnx_ir as ir

from ..errors import ModelError, shorten
from ..files import MODEL_BYTES, read_part, size_of_file
from .subgraphs import bodies

#: The most bytes of a model with its data; one ONNX file, and so a plan, holds 2 GiB with the names and the graph.
_MOST_BYTES = MODEL_BYTES - 2**24
_SHOWN = 80  # characters of a name in a message


def pull_in(proto: onnx.ModelProto, path: Path, size: int, seen: Callable[[bytes], None]) -> None:
    """Replaces every reference of a model of `size` bytes, read from `path`, by the data itself; changes the model.

    `seen` is called with what was read, in the model's order: the model's hash covers it. Raises ModelError if a file is missing, lies
    outside the model's folder or is too short, and if all of it would have more than 2 GiB, which no ONNX file and no plan can hold.
    """
    for tensor in tensors_of(proto):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        expected = _bytes(tensor, path)
        size += expected
        if size > _MOST_BYTES:
            raise ModelError(
                f"{path} and its data files hold more than 2 GiB, which one ONNX file or plan cannot.",
                "Store the weights as FP16, or take a smaller model.",
            )
        data = _read(tensor, path, expected)
        seen(data)
        del tensor.external_data[:]
        tensor.data_location = onnx.TensorProto.DEFAULT
        tensor.raw_data = data


def tensors_of(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a model: initializers and attributes, also in subgraphs and functions."""
    yield from _of_graph(proto.graph)
    for function in proto.functions:
        for node in function.node:
            yield from _of_node(node)


def _of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _of_node(node)


def _of_node(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
    for body in bodies(node):
        yield from _of_graph(body)


def _bytes(tensor: onnx.TensorProto, path: Path) -> int:
    """How many bytes a tensor's values take. Raises ModelError for a type or dimensions that no stored tensor has."""
    try:
        bits = int(ir.DataType(tensor.data_type).bitwidth)
    except (ValueError, TypeError) as error:
        raise _fault(tensor, path, f"its type {tensor.data_type} cannot be stored in a file") from error
    if any(size < 0 for size in tensor.dims):
        raise _fault(tensor, path, "it has a negative size")
    return -(-math.prod(map(int, tensor.dims)) * bits // 8)


def _read(tensor: onnx.TensorProto, path: Path, expected: int) -> bytes:
    place = {entry.key: entry.value for entry in tensor.external_data}
    file = _beside(tensor, path, place.get("location", ""))
    offset, length = (_whole(tensor, path, key, place.get(key, default)) for key, default in (("offset", "0"), ("length", str(expected))))
    if length != expected:
        raise _fault(tensor, path, f"{length:,} bytes are kept for it, and its shape needs {expected:,}")
    if offset + length > size_of_file(file, ModelError):
        raise _fault(tensor, path, f"it needs {file.name} up to byte {offset + length:,}, where it is shorter")
    return read_part(file, offset, length, ModelError, f"the data of {path.name}")


def _whole(tensor: onnx.TensorProto, path: Path, key: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise _fault(tensor, path, f"its {key} is {shorten(text, _SHOWN)!r}; expected a whole number")
    return int(text)


def _beside(tensor: onnx.TensorProto, path: Path, location: str) -> Path:
    """The data file that a location names. Raises ModelError if it is missing or not in the model's folder."""
    folder = os.path.realpath(path.parent)
    foreign = PureWindowsPath(location)  # knows drives and both separators
    if not location or "\0" in location or foreign.is_absolute() or foreign.drive or foreign.root or ".." in foreign.parts:
        raise _fault(tensor, path, f"its data would be {shorten(location, _SHOWN)!r}, which is not a file in the model's folder")
    file = os.path.realpath(os.path.join(folder, location))
    if os.path.commonpath((folder, file)) != folder:
        raise _fault(tensor, path, f"{shorten(location, _SHOWN)} is a link that leads out of the model's folder")
    if not os.path.isfile(file):
        shown = shorten(location, _SHOWN)
        raise ModelError(f"{path} keeps its weights in {shown}, and there is no such file beside it.", f"Copy {shown} into its folder.")
    return Path(file)


def _fault(tensor: onnx.TensorProto, path: Path, why: str) -> ModelError:
    return ModelError(f"The weight {shorten(tensor.name, _SHOWN)} of {path} cannot be read: {why}.")
