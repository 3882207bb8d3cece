"""msgspec's message about a value that does not fit its type -> "input.shape[2] is 0; expected a whole number, at least 1"."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect

from ..errors import shorten
from ..types import BARE_KEY, FILE_NAME, HEX_64, NO_CONTROLS, PIXEL_VALUE

#: A step from a value to one in it: a field's name or a table's key, a place in a list, or None for a key that msgspec does not tell.
Step = str | int | None

_PATTERNS = {
    FILE_NAME: "a plain file name of at most 100 characters, without separators and not beginning with a dot",
    NO_CONTROLS: "a text without control characters",
    PIXEL_VALUE: "a number from 0 to 255",
    BARE_KEY: "letters, digits, _ and -, at most 100",
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
_WORDS = {"<=": "at most", ">=": "at least", "<": "less than", ">": "more than"}
#: The end of a message: " - at `$.input.shape[2]`", or " - at `key` in `$.layers`".
_PLACE = re.compile(r" - at (?P<key>`key` in )?`\$(?P<path>[^`]*)`\Z")
_STEP = re.compile(r"\.(?P<name>\w+)|\[(?P<index>\d+)\]|\[\.\.\.\]")
_LENGTH = re.compile(r"Expected `(str|array|object)` of length ?(<=|>=)? ?(\d+)")
_BOUND = re.compile(r"Expected `(\w+)` (<=|>=|<|>) (\S+)")
_MISSING = re.compile(r"Object missing required field `(\w+)`")
_UNSEEN = object()


@functools.cache
def type_of(kind: type) -> inspect.Type:
    """msgspec's description of a type."""
    return inspect.type_info(kind)


def explain(error: msgspec.ValidationError, data: object, kind: type) -> str:
    """What msgspec says about `data`, which is no `kind` -> a sentence without its full stop."""
    place = _PLACE.search(str(error))
    what = str(error) if place is None else str(error)[: place.start()]
    steps = [] if place is None else _pinned(data, kind, _steps(place["path"]))
    name = named(steps) or "it"
    missing = _MISSING.fullmatch(what)
    if missing:
        return f"{name} has no {missing[1]}"
    if place is not None and place["key"]:
        return f"{name} has a key that it cannot have; expected {_expected(what, None)}"
    value, info = _at(data, type_of(kind), steps)
    return f"{name} {shown(value)}; expected {_expected(what, info)}"


def named(steps: list[Step]) -> str:
    """Steps -> input.shape[2]; a key that is no plain word is quoted."""
    text = ""
    for step in steps:
        if step is None or isinstance(step, int):
            text += "[...]" if step is None else f"[{step}]"
        elif re.match(BARE_KEY, step):
            text += f".{step}" if text else step
        else:
            text += f"[{shorten(step, 60)!r}]"
    return text


def shown(value: object) -> str:
    """What a value is, in a few words that do not grow with it."""
    if value is _UNSEEN:
        return "has a wrong value"
    if isinstance(value, (list, tuple)):
        return f"is a list of {len(value):,} value{'s' * (len(value) != 1)}"
    if isinstance(value, dict):
        return f"is a table of {len(value):,} key{'s' * (len(value) != 1)}"
    if value is None or isinstance(value, bool):
        return f"is {str(value).lower().replace('none', 'null')}"
    return f"is {shorten(value, 60)!r}" if isinstance(value, str) else f"is {shorten(str(value), 60)}"


def _steps(path: str) -> list[Step]:
    return [match["name"] or (None if match["index"] is None else int(match["index"])) for match in _STEP.finditer(path)]


def _pinned(data: object, kind: type, steps: list[Step]) -> list[Step]:
    """Steps, with the keys that msgspec leaves out: each is found by halving its table until one key alone gives the same message."""
    for number, step in enumerate(steps):
        table, _ = _at(data, type_of(kind), steps[:number])
        if step is not None or not isinstance(table, dict):
            continue
        keys = list(table)
        while len(keys) > 1:
            half = keys[: len(keys) // 2]
            part = _replaced(data, steps[:number], {key: table[key] for key in half})
            keys = half if _fails_at(part, kind, steps) else keys[len(half) :]
        steps = [*steps[:number], keys[0], *steps[number + 1 :]]
    return steps


def _fails_at(data: object, kind: type, steps: list[Step]) -> bool:
    try:
        msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        place = _PLACE.search(str(error))
        found = [] if place is None else _steps(place["path"])
        return len(found) == len(steps) and all(own in (None, other) for own, other in zip(found, steps, strict=True))
    return False


def _replaced(data: Any, steps: list[Step], value: object) -> object:
    """A copy of plain values with another value at the end of the steps."""
    if not steps:
        return value
    copy: Any = dict(data) if isinstance(data, dict) else list(data)
    copy[steps[0]] = _replaced(data[steps[0]], steps[1:], value)
    return copy


def _at(data: Any, info: inspect.Type, steps: list[Step]) -> tuple[Any, inspect.Type | None]:
    """The value at the end of the steps, and the type that it should have; _UNSEEN and None if a step leads nowhere."""
    for step in steps:
        try:
            data, info = data[step], next(_inside(info, step))
        except (KeyError, IndexError, TypeError, StopIteration):
            return _UNSEEN, None
    return data, info


def _inside(info: inspect.Type, step: Step) -> Iterator[inspect.Type]:
    """The types that a value of a type has at a step; a union's own come one after the other."""
    if isinstance(info, inspect.UnionType):
        for each in info.types:
            yield from _inside(each, step)
    elif isinstance(info, inspect.DataclassType):
        yield from (field.type for field in info.fields if field.encode_name == step)
    elif isinstance(info, inspect.DictType):
        yield info.value_type
    elif isinstance(info, inspect.TupleType) and isinstance(step, int):
        yield info.item_types[step]
    elif isinstance(info, (inspect.VarTupleType, inspect.ListType)) and isinstance(step, int):
        yield info.item_type


def _expected(what: str, info: inspect.Type | None) -> str:
    for pattern, words in _PATTERNS.items():
        if repr(pattern) in what:
            return words
    if _choices(info):
        return "one of " + ", ".join(map(str, _choices(info)))
    if "out of range" in what:
        return "a number that is not so large"
    length, bound = _LENGTH.match(what), _BOUND.match(what)
    if length:
        unit = "characters" if length[1] == "str" else "values"
        return f"{_WORDS.get(length[2], '')} {length[3]} {unit if length[3] != '1' else unit[:-1]}".strip()
    if bound:
        return f"{_NOUNS.get(bound[1], bound[1])}, {_WORDS[bound[2]]} {bound[3].removesuffix('.0')}"
    kinds = re.match(r"Expected `([^`]*)`, got", what)
    if kinds:
        *first, last = (_NOUNS.get(each, each) for each in kinds[1].split(" | "))
        return f"{', '.join(first)} or {last}" if first else last
    return f"another value ({shorten(what)})"


def _choices(info: inspect.Type | None) -> tuple[Any, ...]:
    types = info.types if isinstance(info, inspect.UnionType) else (info,)
    return next((each.values for each in types if isinstance(each, inspect.LiteralType)), ())
