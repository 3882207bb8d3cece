"""Mutations of documents, seeded by hypothesis: of their values (other types, dropped keys, nesting, huge numbers) and of their text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

Path = tuple[str | int, ...]

#: Values that a field hardly expects. TOML has no None.
VALUES: list[Any] = [True, 0, 1, -1, 2, 300, 10**6, 2**40, 2**63 - 1, 0.5, -0.0, 1e308, "", "x", "1", ".", "..", "../x", "a/b", "a\\b"]
VALUES += ["x" * 3000, "\x1b[31m", "a\nb", "é\u202eb", "\x00", "{name}", [], [1], [[]], ["x"], ["x", "x"], {}, {"a": 1}, {"name": 3}]
VALUES += [
    [1, 2, 3],
    [0, 0, 0],
    [20000, 20000],
    [48, 64],
    [[1, 2, 3]] * 300,
    ["c"] * 300,
    {"deep": {"er": [{"x": {}}]}},
    "0" * 64,
    "ab" * 32,
]
#: Texts to put anywhere in a document's text.
SNIPPETS = [
    "[",
    "]",
    "{",
    "}",
    '"',
    "'",
    '"""',
    "'''",
    "#",
    "\\",
    "=",
    ",",
    ":",
    ".",
    "\n",
    "\r",
    "\x00",
    "\ufeff",
    "é",
    "\\ud800",
    "NaN",
    "1e999",
]
SNIPPETS += [
    "[" * 2000,
    "{" * 2000,
    '{"a":' * 2000,
    "[" * 2000 + "]" * 2000,
    "a." * 2000 + "b = 1\n",
    "\n[" + "a." * 500 + "b]\n",
    "9" * 5000,
]
SNIPPETS += [
    "0x" + "f" * 5000,
    "\nx = " + "{a = " * 500 + "1",
    "x" * 70_000,
    "\nversion = 2\n",
    '"version": 2, ',
    "1979-05-27T07:32:00Z",
    "inf",
    "-",
]


def bounded(examples: int) -> settings:
    quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=examples, derandomize=True, deadline=None, database=None, suppress_health_check=quiet)


def paths(values: Any, path: Path = ()) -> Iterator[Path]:
    """Where the values of a document are, itself first."""
    yield path
    items: Any = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for step, value in items:
        yield from paths(value, (*path, step))


@st.composite
def other_values(draw: st.DrawFn, document: dict[str, Any]) -> Any:
    """A document's plain values with one or two changes."""
    values = _own(document)
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(list(paths(values))))
        how = draw(st.sampled_from(["replace", "replace", "drop", "drop", "wrap", "repeat", "add"]))
        values = _changed(values, path, how, _own(draw(st.sampled_from(VALUES))))
    return values


@st.composite
def other_text(draw: st.DrawFn, text: str) -> str:
    """A document's text with one or two changes."""
    for _ in range(draw(st.integers(1, 2))):
        first, second = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
        how = draw(st.sampled_from(["insert", "insert", "cut", "remove", "repeat"]))
        if how == "insert":
            text = text[:first] + draw(st.sampled_from(SNIPPETS)) + text[first:]
        elif how == "cut":
            text = text[:first]
        elif how == "remove":
            text = text[:first] + text[first + 1 + (second - first) % 20 :]
        else:
            text = text[:second] + text[first:second] + text[second:]
    return text


def _own(values: Any) -> Any:
    """A copy in which no list stands twice: a change would change both."""
    return json.loads(json.dumps(values))


def _changed(values: Any, path: Path, how: str, value: Any) -> Any:
    if not path:
        return values if how in ("drop", "repeat") else [values] if how == "wrap" else value
    holder = values
    for step in path[:-1]:
        holder = holder[step]
    last: Any = path[-1]
    if how == "drop":
        del holder[last]
    elif how == "wrap":
        holder[last] = [holder[last]]
    elif how == "repeat" and isinstance(holder, list):
        holder.append(holder[last])
    elif how == "add" and isinstance(holder[last], dict):
        holder[last]["unknown"] = value
    else:
        holder[last] = value
    return values
