"""Text of documents: sizes, nesting and keys are bounded before a parser sees them, and what is refused is refused at once."""

from __future__ import annotations

import time
import tomllib
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from odd_documents import bounded

from rtformer_deploy.formats.documents import JSON_BYTES, MOST_KEY_PARTS, MOST_NESTED, DocumentError, parse_json, parse_toml


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested more than 32 deep"),
        ("[" * 100_000 + "]" * 100_000, "nested more than 32 deep"),
        ('{"a":' * 100_000, "nested more than 32 deep"),
        ('{"a": "\\"[", "b": ' + "[" * 40, "nested more than 32 deep"),
        ('"' + "\\" * 1_000_001, "cut short"),
        ("9" * 100_000, "out of range"),
        ("1e999", "out of range"),
        ("[1,\n NaN]", "it is not JSON: invalid character in line 2"),
        ('"\\ud800"', "damaged"),
        ("", "cut short"),
        ("{} {}", "it is not JSON: trailing characters"),
        (" " * (JSON_BYTES + 1), "it has 1,048,577 bytes, more than 1,048,576"),
    ],
    ids=range(12),
)
def test_json_that_no_parser_should_see(text: str, message: str) -> None:
    refused(lambda: parse_json(text), message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a." * 20_000 + "a = 1", "a key of 20,001 parts, more than 16"),  # a minute and 1.9 GB in tomllib
        (" . ".join("abcdefghijklmnopq") + " = 1", "a key of 17 parts"),
        ('"a".' * 17 + "a = 1", "a key of 18 parts"),
        ("[" + "a." * 20_000 + "a]", "a key of 20,001 parts"),
        ("x = {" + "a." * 17 + "b = 1}", "a key of 18 parts"),
        ("x = [0, {" + "a." * 17 + "b = 1}]", "a key of 18 parts"),
        ("x = " + "[" * 10_000, "nested more than 32 deep"),
        ("x = " + "{a = " * 10_000, "nested more than 32 deep"),
        ('x = ["""a"""", ' + "[" * 40 + ', "y"]', "nested more than 32 deep"),  # the fourth quote belongs to the string
        ("x = ['''a'''', " + "[" * 40 + ", 'y']", "nested more than 32 deep"),
        ("x = '\\' # '\ny = " + "[" * 40, "nested more than 32 deep"),
        ('x = "\\"" # "\ny = ' + "[" * 40, "nested more than 32 deep"),
        ("x = 0x" + "f" * 5000, "a number or a key of 5,002 characters"),
        ("x = " + "9" * 5000, "a number or a key of 5,000 characters"),
        ("#" + "x" * 70_000, "a line of 70,001 characters"),
        ("x = ", "Invalid value"),
        ("x = 1\nx = 2", "Cannot overwrite a value"),
    ],
    ids=range(17),
)
def test_toml_that_no_parser_should_see(text: str, message: str) -> None:
    refused(lambda: parse_toml(text), message)


def refused(parse: Any, message: str) -> None:
    """One error, within a second and a few times the text in memory."""
    begin = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(DocumentError, match=message) as error:
            parse()
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    finally:
        tracemalloc.stop()
    assert len(str(error.value)) < 300
    assert time.process_time() - begin < 3


@pytest.mark.parametrize(
    "text", ['x = "' + "[" * 100 + '"', "x = '" + "a." * 100 + "'", 'x = """\n' + "[\n" * 100 + '"""', "# " + "{" * 100]
)
def test_brackets_and_dots_in_strings_and_comments_do_not_count(text: str) -> None:
    assert parse_toml(text) == tomllib.loads(text)


def test_the_bounds_themselves_are_within() -> None:
    assert parse_json("[" * MOST_NESTED + "]" * MOST_NESTED)
    assert parse_toml("x = " + "[" * MOST_NESTED + "]" * MOST_NESTED)
    assert parse_toml(".".join(["a"] * MOST_KEY_PARTS) + " = 1")
    assert parse_json('{"\\"[": "[[", "b": 1.5e3, "c": 18446744073709551616}') == {'"[': "[[", "b": 1500.0, "c": 2**64}


QUOTES = ['"', "'", '"""', "'''"]
INNER = ["a", ".", " ", "[", "{", "#", "\\\\", '\\"', '"', '""', "'", "''", "\n", ", "]
AFTER = ["", '"', "'", '""', "''"]
STRINGS = st.tuples(st.sampled_from(QUOTES), st.lists(st.sampled_from(INNER), max_size=4), st.sampled_from(AFTER))


@bounded(250)
@given(st.lists(STRINGS, min_size=1, max_size=3), st.booleans())
def test_the_scan_ends_strings_where_the_parser_ends_them(strings: list[tuple[str, list[str], str]], deep: bool) -> None:
    parts = [quote + "".join(inner) + quote + after for quote, inner, after in strings]
    text = "x = [" + ", ".join([*parts, "[" * 40 + "]" * 40] if deep else parts) + ', "y"]'
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    if deep:
        with pytest.raises(DocumentError, match="nested more than"):
            parse_toml(text)
    else:
        assert parse_toml(text) == values
