"""Plain values of a document -> the type that they should have (msgspec), with the field's path in the message.

A document says its `version`; one that does not is of version 1. What users write is converted strictly: an unknown key or a newer
version is an error. What the tool writes is converted with tolerance: a newer version may say more, which is a note.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from ..errors import shorten
from ..types import FILE_NAME, HEX_64
from .documents import DocumentError

T = TypeVar("T")

VERSION = "version"
_UPDATE = "install a newer rtformer-deploy"
_MOST_LISTED = 5
_PATTERNS = {
    FILE_NAME: "a plain file name of at most 100 characters, without separators and not beginning with a dot",
    HEX_64: "64 hexadecimal digits in lower case",
}
_NOUNS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "nothing",
}
#: The end of msgspec's messages: " - at `$.input.shape[2]`", or " - at `key` in `$.layers`".
_PLACE = re.compile(r" - at (?P<key>`key` in )?`\$(?P<path>[^`]*)`\Z")
_LENGTH = re.compile(r"Expected `(str|array|object)` of (?:length|at (?:least|most) length) ?(<=|>=)? ?(\d+)")
_BOUND = re.compile(r"Expected `(\w+)` (<=|>=|<|>) (\S+)")
_WORDS = {"<=": "at most", ">=": "at least", "<": "less than", ">": "more than"}


def convert(data: object, kind: type[T]) -> T:
    """Plain values -> the type, in which unknown keys are left out. Raises DocumentError with the path of the first field that is wrong."""
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise DocumentError(_readable(str(error), data, kind)) from error


def convert_strict(data: Mapping[str, Any], kind: type[T], known: int = 1) -> T:
    """A document that users write, of a version up to `known`, -> its type. Raises DocumentError, also for unknown keys."""
    values = dict(data)
    version = _version(values)
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
    values = dict(data) if isinstance(data, dict) else data
    version = _version(values) if isinstance(values, dict) else 1
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


def unknown_keys(data: object, kind: type) -> list[str]:
    """The paths of the keys in plain values that the type does not have, at any depth."""
    return list(_unknown(data, _info(kind), ""))


def _version(values: dict[str, Any]) -> int:
    """Takes the version out of a document. Raises DocumentError."""
    version = values.pop(VERSION, 1)
    if type(version) is not int or not 1 <= version < 2**31:
        raise DocumentError(f"{VERSION} {_shown(version)}; expected a whole number, at least 1")
    return version


@functools.cache
def _info(kind: type) -> inspect.Type:
    return inspect.type_info(kind)


def _unknown(data: object, info: inspect.Type, path: str) -> Iterator[str]:
    if isinstance(info, inspect.UnionType):
        info = next((each for each in info.types if isinstance(each, inspect.DataclassType)), info)
    if isinstance(info, inspect.DataclassType) and isinstance(data, dict):
        fields = {field.encode_name: field.type for field in info.fields}
        for key, value in data.items():
            where = f"{path}.{key}" if path else key
            if key in fields:
                yield from _unknown(value, fields[key], where)
            else:
                yield where
    elif isinstance(info, (inspect.VarTupleType, inspect.ListType)) and isinstance(data, (list, tuple)):
        for index, value in enumerate(data):
            yield from _unknown(value, info.item_type, f"{path}[{index}]")
    elif isinstance(info, inspect.DictType) and isinstance(data, dict):
        for key, value in data.items():
            yield from _unknown(value, info.value_type, f"{path}.{key}")


def _listed(keys: list[str]) -> str:
    more = f" and {len(keys) - _MOST_LISTED:,} more" if len(keys) > _MOST_LISTED else ""
    return ", ".join(shorten(key, 60) for key in keys[:_MOST_LISTED]) + more


def _readable(message: str, data: object, kind: type) -> str:
    """msgspec's message -> "input.shape[2] is 0; expected a whole number, at least 1"."""
    place = _PLACE.search(message)
    path, what = ("", message) if place is None else (place["path"], message[: place.start()])
    name = path.lstrip(".") or "it"
    missing = re.fullmatch(r"Object missing required field `(\w+)`", what)
    if missing:
        return f"{name} has no {missing[1]}"
    if place is not None and place["key"]:
        return f"a key of {name} is not what it should be; expected {_expected(what, None)}"
    value, info = _at(data, _info(kind), path)
    return f"{name} {_shown(value)}; expected {_expected(what, info)}"


def _expected(what: str, info: inspect.Type | None) -> str:
    for pattern, words in _PATTERNS.items():
        if repr(pattern) in what:
            return words
    choices = _choices(info)
    if choices and (what.startswith("Invalid enum value") or not isinstance(info, inspect.UnionType)):
        return "one of " + ", ".join(map(str, choices))
    length = _LENGTH.match(what)
    if length:
        unit = "characters" if length[1] == "str" else "values"
        return f"{_WORDS.get(length[2], '')} {length[3]} {unit}".strip()
    bound = _BOUND.match(what)
    if bound:
        return f"{_NOUNS.get(bound[1], bound[1])}, {_WORDS[bound[2]]} {bound[3].removesuffix('.0')}"
    kinds = re.match(r"Expected `([^`]*)`, got", what)
    if kinds:
        return " or ".join(_NOUNS.get(each, each) for each in kinds[1].split(" | "))
    return f"another value ({shorten(what)})"


def _choices(info: inspect.Type | None) -> tuple[Any, ...]:
    for each in info.types if isinstance(info, inspect.UnionType) else (info,):
        if isinstance(each, inspect.LiteralType):
            return each.values
    return ()


_UNSEEN = object()


def _at(data: object, info: inspect.Type, path: str) -> tuple[object, inspect.Type | None]:
    """The value at a path of msgspec's, and the type that it should have; _UNSEEN and None if the path does not say which value."""
    for name, index in re.findall(r"\.([^.\[]+)|\[([^\]]*)\]", path):
        if isinstance(info, inspect.UnionType):
            info = next((each for each in info.types if isinstance(each, (inspect.DataclassType, inspect.DictType))), info)
        if index == "...":
            return _UNSEEN, None
        if name and isinstance(data, dict) and isinstance(info, inspect.DataclassType):
            data, info = data.get(name, _UNSEEN), next(field.type for field in info.fields if field.encode_name == name)
        elif index and isinstance(data, (list, tuple)) and isinstance(info, (inspect.VarTupleType, inspect.ListType, inspect.TupleType)):
            place = int(index)
            data, info = data[place], info.item_types[place] if isinstance(info, inspect.TupleType) else info.item_type
        else:
            return _UNSEEN, None
    return data, info


def _shown(value: object) -> str:
    """What a value is, in a few words."""
    if value is _UNSEEN:
        return "has a wrong value"
    if isinstance(value, (list, tuple)):
        return f"is a list of {len(value):,} values"
    if isinstance(value, dict):
        return f"is a table of {len(value):,} keys"
    if value is None or isinstance(value, bool):
        return f"is {str(value).lower().replace('none', 'null')}"
    return f"is {shorten(value, 60)!r}" if isinstance(value, str) else f"is {shorten(str(value), 60)}"
