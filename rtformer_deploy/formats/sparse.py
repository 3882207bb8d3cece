"""Weights that an ONNX file keeps as sparse tensors -> the same weights in full: what reads models knows no others."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import numpy_helper

from ..errors import ModelError, shorten
from ..files import MODEL_BYTES
from .subgraphs import bodies, walk


def fill_sparse(proto: onnx.ModelProto, name: str) -> None:
    """Writes out the sparse initializers of every graph, and the sparse values of Constant nodes, also of functions; changes the model.

    Raises ModelError if one does not fit its shape, or all of them together take more than 2 GiB.
    """
    left = MODEL_BYTES
    nodes = list(walk([*proto.graph.node, *(node for function in proto.functions for node in function.node)]))
    for graph in (proto.graph, *(body for node in nodes for body in bodies(node))):
        for sparse in graph.sparse_initializer:
            left -= _bytes(sparse, name, left)
            graph.initializer.append(_full(sparse, name))
        del graph.sparse_initializer[:]
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.SPARSE_TENSOR and node.op_type == "Constant":
                left -= _bytes(attribute.sparse_tensor, name, left)
                full = _full(attribute.sparse_tensor, name)
                attribute.CopyFrom(onnx.helper.make_attribute("value", full))


def _bytes(sparse: onnx.SparseTensorProto, name: str, most: int) -> int:
    """The bytes that the tensor takes in full, going by its widest numbers."""
    size = 8 * math.prod(map(int, sparse.dims))
    if any(dim < 0 for dim in sparse.dims) or size > most:
        shape = "x".join(map(str, sparse.dims))
        raise ModelError(f"The sparse weight {shorten(sparse.values.name)} of {name} is {shape}, which is more than is read.")
    return size


def _full(sparse: onnx.SparseTensorProto, name: str) -> onnx.TensorProto:
    try:
        values, places = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
        shape = tuple(map(int, sparse.dims))
        array = np.zeros(shape, values.dtype)
        if places.ndim == 2:
            places = np.ravel_multi_index(tuple(places.T), shape)
        if places.size and (places.min() < 0 or places.size != values.size):
            raise ValueError("its indices do not fit its values")
        array.reshape(-1)[places] = values
    except (ValueError, TypeError, IndexError) as error:
        raise ModelError(f"The sparse weight {shorten(sparse.values.name)} of {name} cannot be read: {error}.") from error
    return numpy_helper.from_array(array, sparse.values.name)
