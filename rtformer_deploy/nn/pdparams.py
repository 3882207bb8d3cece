"""PaddleSeg's `.pdparams` bytes in, NumPy arrays out, without running anything the file asks for.

The file is a pickle. The unpickler below knows NumPy arrays and plain containers and nothing else: it does not even call NumPy's own
constructors, but fills stand-ins that check their arguments. A file that asks for anything more is refused by the name of it.
"""

from __future__ import annotations

import io
import math
import pickle
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import WeightsError

_NUMBER_TYPES = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"}
_BOOKKEEPING = "StructuredToParameterName@@"


class _Ndarray:
    """Stands for the class numpy.ndarray, which a pickle names but never needs to call."""

    def __new__(cls, *_: object) -> _Ndarray:
        raise pickle.UnpicklingError("it calls numpy.ndarray")


class _Dtype:
    """A NumPy number type and its byte order."""

    def __init__(self, name: object, *_: object) -> None:
        if name not in _NUMBER_TYPES:
            raise pickle.UnpicklingError(f"it holds an array of type {name!r}, which is no number type")
        self.name = str(name)
        self.order = "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError(f"it holds an array with byte order {state[1]!r}")
        self.order = state[1]


class _Array:
    """An array being filled; `value` is the finished one."""

    value: NDArray[Any]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
            raise pickle.UnpicklingError("it holds an array that is not plain bytes of a number type")
        kind = np.dtype(dtype.order + dtype.name)
        if not all(isinstance(size, int) and size >= 0 for size in shape) or math.prod(shape) * kind.itemsize != len(data):
            raise pickle.UnpicklingError(f"it holds an array of shape {shape} with {len(data)} bytes")
        self.value = np.frombuffer(data, kind).reshape(shape, order="F" if fortran else "C")


def _reconstruct(kind: object, *_: object) -> _Array:
    if kind is not _Ndarray:
        raise pickle.UnpicklingError("it makes an array of another class")
    return _Array()


def _latin1(text: object, encoding: object = "latin1") -> bytes:
    """Bytes as protocol 2 writes them: a string whose characters are the bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("it encodes something that is not bytes")
    return text.encode("latin1")


_KNOWN = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Ndarray,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _latin1,
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "tuple"): tuple,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _KNOWN[module, name]


def parse_pdparams(data: bytes, name: str) -> dict[str, NDArray[Any]]:
    """The bytes of a `.pdparams` file as arrays by key; `name` stands in the messages. Raises WeightsError; nothing in the file runs."""
    try:
        content = _Unpickler(io.BytesIO(data)).load()
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{name} is refused: {error}. Weights hold arrays and nothing else.", "Do not use files you do not trust."
        ) from error
    except Exception as error:  # a damaged pickle can make the unpickler raise nearly anything
        raise WeightsError(f"{name} is not a .pdparams file, or was cut short ({type(error).__name__}: {error}).") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{name} holds a {type(content).__name__}, not weights by name.")
    return {key: _array(key, value, name) for key, value in content.items() if key != _BOOKKEEPING}


def _array(key: object, value: object, name: str) -> NDArray[Any]:
    if isinstance(value, tuple) and len(value) == 2:  # Paddle writes a parameter outside a state dict as (its name, array)
        value = value[1]
    if not isinstance(key, str) or not isinstance(value, _Array) or not hasattr(value, "value"):
        raise WeightsError(
            f"{name}: {key!r} is not an array.", "If this is an optimizer's or a whole checkpoint's file, take model.pdparams."
        )
    return value.value
