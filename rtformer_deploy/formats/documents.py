"""JSON and TOML text -> plain values. Size, nesting and the length of keys are bounded before a parser sees the text.

`conversion` turns the values into types. Neither knows the file: they raise DocumentError, and the caller adds the file's name.
"""

from __future__ import annotations

import re
import tomllib
from itertools import accumulate
from typing import Any

import msgspec

from ..errors import DeployError, shorten
from ..files import read_text

#: The largest text of each kind, in bytes. Parsed, it takes at most a few seconds and some fifty times its size.
JSON_BYTES = 2**20
TOML_BYTES = 2**19
#: The longest line of TOML, in characters.
LONGEST_LINE = 2**16
#: How deep lists and tables may lie in each other.
MOST_NESTED = 32
#: How many parts a dotted key may have: a.b.c has three. tomllib's work and memory grow with their square.
MOST_KEY_PARTS = 16
#: The longest number or bare key of TOML, in characters.
LONGEST_WORD = 200

# An unterminated string reaches to the end of the text or line, so every character is looked at once.
_JSON_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_TOML_TEXT = re.compile(
    r'"""(?:[^"\\]++|\\.|"(?!""))*+"{0,5}'  # a string over several lines may end with two quotes of its own
    r"|'''(?:[^']++|'(?!''))*+'{0,5}"
    r'|"(?:[^"\\\n]++|\\[^\n])*+"?'
    r"|'[^'\n]*+'?"
    r"|#[^\n]*+",
    re.DOTALL,
)
_BETWEEN_KEYS = re.compile(r"[\n=,\[\]{}]")
_BETWEEN_WORDS = re.compile(r"[\s=,\[\]{}\"]+")
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NOT_BRACKETS = bytes(set(range(256)) - _STEPS.keys())


class DocumentError(ValueError):
    """What is wrong with a document, as part of a sentence: the caller says which file it is."""


def parse_json(data: bytes | str, most: int = JSON_BYTES) -> Any:
    """JSON text of at most `most` bytes -> its value. NaN, infinity and halves of surrogate pairs are refused. Raises DocumentError."""
    data = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    if len(data) > most:
        raise DocumentError(f"it has {len(data):,} bytes, more than {most:,}")
    _check_nesting(_JSON_STRING.sub(b"", data))
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DocumentError(_why(error, data)) from error


def parse_toml(text: str) -> dict[str, Any]:
    """TOML text -> its table. Raises DocumentError."""
    _check_toml(text)
    try:
        return tomllib.loads(text)
    except ValueError as error:  # also of int(), for a number of too many digits
        raise DocumentError(shorten(str(error), 200)) from error


def read_toml(path: Any, error: type[DeployError], what: str) -> dict[str, Any]:
    """A TOML file -> its table; `what` the file should be. Raises `error`."""
    try:
        return parse_toml(read_text(path, error, what, TOML_BYTES).removeprefix("\ufeff"))
    except DocumentError as cause:
        raise error(f"Cannot read {path}: {cause}.") from cause


def _why(error: Exception, data: bytes) -> str:
    """msgspec's message with the line. It calls a document truncated that ends too early, or in which half a character stands."""
    text = str(error).removeprefix("JSON is malformed: ")
    place = re.search(r" \(byte (\d+)\)$", text)
    if place is not None:
        where = f" in line {data.count(10, 0, int(place[1])) + 1}" if b"\n" in data.strip() else ""
        return f"it is not JSON: {text[: place.start()]}{where}"
    return "it is not JSON: it is cut short, or a text in it is damaged" if "truncated" in text else f"it is not JSON: {text}"


def _check_toml(text: str) -> None:
    line = max(map(len, text.split("\n")))
    if line > LONGEST_LINE:
        raise DocumentError(f"it has a line of {line:,} characters, more than {LONGEST_LINE:,}")
    bare = _TOML_TEXT.sub('"', text)
    _check_nesting(bare.encode("utf-8", "surrogatepass"))
    parts = max(key.count(".") for key in _BETWEEN_KEYS.split(bare)) + 1
    if parts > MOST_KEY_PARTS:
        raise DocumentError(f"it has a key of {parts:,} parts, more than {MOST_KEY_PARTS}")
    word = max(map(len, _BETWEEN_WORDS.split(bare)))
    if word > LONGEST_WORD:
        raise DocumentError(f"it has a number or a key of {word:,} characters, more than {LONGEST_WORD}")


def _check_nesting(text: bytes) -> None:
    """Text without its strings and comments. Raises DocumentError if brackets lie too deep in each other."""
    steps = map(_STEPS.__getitem__, text.translate(None, _NOT_BRACKETS))
    if max(accumulate(steps), default=0) > MOST_NESTED:
        raise DocumentError(f"its lists and tables are nested more than {MOST_NESTED} deep")
