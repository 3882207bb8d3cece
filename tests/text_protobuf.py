"""The text format of Protocol Buffers -> plain values, as far as config.pbtxt uses it; fails on anything else."""

from __future__ import annotations

import ast
import re
from typing import Any

#: Every field is a list, since any may be repeated; a message is a dict.
Fields = dict[str, list[Any]]

_TOKEN = re.compile(r'\s*(?:#[^\n]*\s*)*(?:(?P<text>"(?:[^"\\\n]|\\.)*")|(?P<word>[A-Za-z_]\w*)|(?P<number>-?\d+)|(?P<sign>[{}\[\]:,]))')


def parse(text: str) -> Fields:
    """Text -> its fields. Raises ValueError for what is not in the format."""
    tokens = _tokens(text)
    fields = _fields(tokens, "")
    assert not tokens
    return fields


def _tokens(text: str) -> list[tuple[str, str]]:
    """The tokens, the last one first."""
    found, place = [], 0
    stripped = text.rstrip()
    while place < len(stripped):
        match = _TOKEN.match(stripped, place)
        if match is None:
            raise ValueError(f"no token at {stripped[place : place + 20]!r}")
        assert match.lastgroup is not None
        found.append((match.lastgroup, match[match.lastgroup]))
        place = match.end()
    return [("end", ""), *found[::-1]]


def _fields(tokens: list[tuple[str, str]], end: str) -> Fields:
    fields: Fields = {}
    while (token := tokens.pop()) != (("sign", end) if end else ("end", "")):
        kind, name = token
        if kind != "word":
            raise ValueError(f"{name!r} is no field's name")
        fields.setdefault(name, []).extend(_values(tokens))
    return fields


def _values(tokens: list[tuple[str, str]]) -> list[Any]:
    if tokens[-1] == ("sign", "{"):
        tokens.pop()
        return [_fields(tokens, "}")]
    if tokens.pop() != ("sign", ":"):
        raise ValueError("a field has neither a value nor a message")
    if tokens[-1] != ("sign", "["):
        return [_scalar(*tokens.pop())]
    values = []
    while tokens.pop() != ("sign", "]"):  # [ or a comma
        values.append(_scalar(*tokens.pop()))
    return values


def _scalar(kind: str, text: str) -> Any:
    if kind == "text":
        value: str = ast.literal_eval("b" + text).decode()
        return value
    if kind == "number":
        return int(text)
    if kind == "word":
        return {"true": True, "false": False}.get(text, text)
    raise ValueError(f"{text!r} is no value")
