"""Typed values -> the text format of Protocol Buffers, in which Triton reads config.pbtxt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias, Union


class Word(str):
    """A value that is written without quotes: the name of an enum's value."""


Value: TypeAlias = Union[bool, int, str, "Message", Sequence["Value"]]
#: Field -> value. A list of messages becomes a field each; an empty list is left out.
Message: TypeAlias = Mapping[str, Value]

_ESCAPES = {ord('"'): '\\"', ord("\\"): "\\\\", ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}


def write(message: Message, remarks: Sequence[str] = ()) -> str:
    """A message -> its text, with the remarks, one line each, as comments before it."""
    comments = [f"# {' '.join(remark.split())}" for remark in remarks]
    return "\n".join([*comments, *_lines(message, "")]) + "\n"


def entries(values: Mapping[str, Value]) -> list[Message]:
    """A map of Protocol Buffers -> the messages that it is written as."""
    return [{"key": key, "value": value} for key, value in values.items()]


def _lines(message: Message, indent: str) -> Iterator[str]:
    for name, value in message.items():
        if isinstance(value, Mapping):
            yield from _block(name, value, indent)
        elif isinstance(value, (bool, int, str)):
            yield f"{indent}{name}: {_scalar(value)}"
        else:
            yield from _several(name, value, indent)


def _several(name: str, values: Sequence[Value], indent: str) -> Iterator[str]:
    scalars = [_scalar(each) for each in values if isinstance(each, (bool, int, str))]
    if scalars:
        yield f"{indent}{name}: [ {', '.join(scalars)} ]"
    for each in values:
        if isinstance(each, Mapping):
            yield from _block(name, each, indent)


def _block(name: str, message: Message, indent: str) -> Iterator[str]:
    yield f"{indent}{name} {{"
    yield from _lines(message, indent + "  ")
    yield f"{indent}}}"


def _scalar(value: bool | int | str) -> str:
    if isinstance(value, Word):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    return _quoted(value) if isinstance(value, str) else str(value)


def _quoted(text: str) -> str:
    """Text as a string literal in ASCII: other bytes of its UTF-8 are octal escapes."""
    return '"' + "".join(_ESCAPES.get(byte) or (chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}") for byte in text.encode()) + '"'
