"""Reads PaddleSeg's `.pdparams` files as NumPy arrays, without running any code that the file asks for.

The file is a pickle of arrays by name, which `pickle_reader` reads. Beyond plain values it may hold NumPy's arrays and number types;
for these, the classes here check their state and stand in. A file that asks for anything else is refused, and the error names it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import WeightsError, shorten
from .pickle_reader import DamagedError, Name, RefusedError, Vocabulary, is_shape, read_pickle

_NUMBER_TYPES = frozenset({"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1", "c8", "c16"})
_BYTE_ORDERS = ("<", ">", "|", "=")
_BOOKKEEPING = "StructuredToParameterName@@"


class _Dtype:
    """A NumPy number type and its byte order."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.order = "<"

    def build(self, state: object) -> None:
        """Takes the state of a plain number type, as NumPy writes it: a byte order, but no fields, sizes or flags."""
        match state:
            case (int(), str(order), None, None, None, -1, -1, 0) if order in _BYTE_ORDERS:
                self.order = order
            case (int(), str(order), *_) if order in _BYTE_ORDERS:
                raise RefusedError("it holds an array whose number type has fields, sizes or flags of its own")
            case _:
                raise RefusedError("it holds an array whose byte order is unknown")


class _Array:
    """An array; `build` sets `value`, a view of the file's bytes."""

    def __init__(self) -> None:
        self.value: NDArray[Any] | None = None

    def build(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise RefusedError("it holds an array of an unknown form")
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
            raise RefusedError("it holds an array that is not plain bytes of a number type")
        if not is_shape(shape) or not isinstance(fortran, bool):
            raise RefusedError("it holds an array of an impossible shape")
        kind = np.dtype(dtype.order + dtype.name)
        if math.prod(shape) * kind.itemsize != len(data):
            raise RefusedError(f"it holds an array of shape {shape} with {len(data)} bytes")
        self.value = np.frombuffer(data, kind).reshape(shape, order="F" if fortran else "C")


class _Calls:
    """What a `.pdparams` file may call. At most `left` bytes are made, so that a file cannot multiply its bytes by repeating them."""

    def __init__(self, left: int) -> None:
        self._left = left

    def vocabulary(self) -> Vocabulary:
        ndarray = Name("numpy.ndarray")
        names = {
            "numpy.core.multiarray._reconstruct": Name("numpy._reconstruct", _reconstruct),
            "numpy._core.multiarray._reconstruct": Name("numpy._reconstruct", _reconstruct),
            "numpy.ndarray": ndarray,
            "numpy.dtype": Name("numpy.dtype", _dtype),
            "_codecs.encode": Name("_codecs.encode", self._encode),
            "collections.OrderedDict": Name("collections.OrderedDict", _empty_dict),
            "builtins.tuple": Name("builtins.tuple", _tuple),
        }
        return Vocabulary(names, _build)

    def _encode(self, arguments: tuple[object, ...]) -> bytes:
        """Bytes as protocol 2 writes them: text whose characters are the bytes."""
        match arguments:
            case (str(text),) | (str(text), "latin1"):
                self._left -= len(text)
                if self._left < 0:
                    raise RefusedError("it repeats its bytes")
                try:
                    return text.encode("latin1")
                except UnicodeEncodeError as error:
                    raise RefusedError("it encodes text that is not bytes") from error
        raise RefusedError("it encodes something that is not bytes")


def _reconstruct(arguments: tuple[object, ...]) -> _Array:
    if not arguments or not isinstance(arguments[0], Name) or arguments[0].name != "numpy.ndarray":
        raise RefusedError("it makes an array of another class")
    return _Array()


def _dtype(arguments: tuple[object, ...]) -> _Dtype:
    name = arguments[0] if arguments else None
    if not isinstance(name, str) or name not in _NUMBER_TYPES:
        quoted = repr(shorten(name)) if isinstance(name, str) else "unknown"
        raise RefusedError(f"it holds an array of type {quoted}, which is no number type")
    return _Dtype(name)


def _empty_dict(arguments: tuple[object, ...]) -> dict[str, object]:
    if arguments:
        raise RefusedError("it fills a dictionary in an unknown way")
    return {}


def _tuple(arguments: tuple[object, ...]) -> tuple[object, ...]:
    match arguments:
        case (tuple() as items,):
            return items
    raise RefusedError("it makes a tuple of something else")


def _build(target: object, state: object) -> None:
    if not isinstance(target, _Array | _Dtype):
        raise RefusedError("it changes something that is neither an array nor a number type")
    target.build(state)


def parse_pdparams(data: bytes, name: str) -> dict[str, NDArray[Any]]:
    """The bytes of a `.pdparams` file as arrays by key; `name` is used in error messages. Raises WeightsError; nothing in the file runs.

    The arrays are views of the file's bytes, and together no larger than the file.
    """
    try:
        content, _ = read_pickle(data, _Calls(len(data)).vocabulary())
    except RefusedError as error:
        raise WeightsError(
            f"{name} is refused: {error}. Weights hold arrays and nothing else.", "Do not use files you do not trust."
        ) from error
    except DamagedError as error:
        raise WeightsError(f"{name} is not a .pdparams file, or was cut short ({error}).", "Copy or download it again.") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{name} holds a {type(content).__name__}, not weights by name.", "Take the file model.pdparams.")
    arrays = {key: _array(key, value, name) for key, value in content.items() if key != _BOOKKEEPING}
    if sum(value.nbytes for value in arrays.values()) > len(data):
        raise WeightsError(f"{name} is refused: it gives one array to several names.", "Save each array once.")
    return arrays


def _array(key: str, value: object, name: str) -> NDArray[Any]:
    if isinstance(value, tuple) and len(value) == 2:  # Paddle writes a parameter outside a state dict as (its name, array)
        value = value[1]
    if not isinstance(value, _Array) or value.value is None:
        raise WeightsError(
            f"{name}: {shorten(key)!r} is not an array.", "If this is an optimizer's or a whole checkpoint's file, take model.pdparams."
        )
    return value.value
