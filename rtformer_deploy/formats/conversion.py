"""Plain values of a document -> the type that they should have (msgspec), with the field's path in the message.

A document says its `version`; one that does not is of version 1. What users write is converted strictly: an unknown key or a newer
version is an error. What the tool writes is converted with tolerance: a newer version may say more, which is a note.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from ..errors import shorten
from .documents import DocumentError
from .explain import Step, explain, named, shown, type_of

T = TypeVar("T")

VERSION = "version"
_UPDATE = "install a newer rtformer-deploy"
_MOST_LISTED = 5


def convert(data: object, kind: type[T]) -> T:
    """Plain values -> the type; unknown keys are left out. Raises DocumentError with the path of the first field that is wrong."""
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise DocumentError(explain(error, data, kind)) from error


def convert_strict(data: Mapping[str, Any], kind: type[T], known: int = 1) -> T:
    """A document that users write, of a version up to `known`, -> its type. Raises DocumentError, also for unknown keys."""
    version, values = split_version(data)
    if version > known:
        raise DocumentError(f"it is of version {version}, and this version of rtformer-deploy reads up to {known}: {_UPDATE}")
    return convert_known(values, kind)


def convert_known(data: Mapping[str, Any], kind: type[T]) -> T:
    """A part of a document that users write -> its type. Raises DocumentError, also for unknown keys."""
    unknown = unknown_keys(data, kind)
    if unknown:
        raise DocumentError(f"it has keys that mean nothing: {_listed(unknown)}")
    return convert(data, kind)


def convert_tolerant(data: object, kind: type[T], known: int = 1) -> tuple[T, str | None]:
    """A document that the tool writes -> its type, and a note if it is of a newer version than `known` or says more than is known.

    Raises DocumentError.
    """
    version, values = split_version(data)
    try:
        value = convert(values, kind)
    except DocumentError as error:
        if version > known:
            raise DocumentError(f"it is of version {version}, and only {known} is known here ({error}): {_UPDATE}") from error
        raise
    unknown = unknown_keys(values, kind)
    if version <= known and not unknown:
        return value, None
    return value, f"version {version}, of which this version of rtformer-deploy does not read: {_listed(unknown) or 'nothing'}"


def split_version(data: object) -> tuple[int, dict[str, Any]]:
    """A document -> its version, and its other keys. Raises DocumentError."""
    if not isinstance(data, Mapping):
        raise DocumentError(f"it {shown(data)}; expected a table")
    values = dict(data)
    version = values.pop(VERSION, 1)
    if type(version) is not int or not 1 <= version < 2**31:
        raise DocumentError(f"{VERSION} {shown(version)}; expected a whole number, at least 1")
    return version, values


def unknown_keys(data: object, kind: type) -> list[str]:
    """The paths of the keys in plain values that the type does not have, at any depth."""
    return [named(steps) for steps in _unknown(data, type_of(kind), [])]


def _unknown(data: object, info: inspect.Type, steps: list[Step]) -> Iterator[list[Step]]:
    if isinstance(info, inspect.UnionType):
        info = next((each for each in info.types if isinstance(each, inspect.DataclassType)), info)
    if isinstance(info, inspect.DataclassType) and isinstance(data, dict):
        fields = {field.encode_name: field.type for field in info.fields}
        for key, value in data.items():
            if key in fields:
                yield from _unknown(value, fields[key], [*steps, key])
            else:
                yield [*steps, key]
    elif isinstance(info, (inspect.VarTupleType, inspect.ListType)) and isinstance(data, list):
        for index, value in enumerate(data):
            yield from _unknown(value, info.item_type, [*steps, index])
    elif isinstance(info, inspect.DictType) and isinstance(data, dict):
        for key, value in data.items():
            yield from _unknown(value, info.value_type, [*steps, key])


def _listed(keys: list[str]) -> str:
    more = f" and {len(keys) - _MOST_LISTED:,} more" if len(keys) > _MOST_LISTED else ""
    return ", ".join(shorten(key, 60) for key in keys[:_MOST_LISTED]) + more
