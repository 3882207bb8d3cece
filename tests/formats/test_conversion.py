"""Plain values into types: the path, the value and what was expected are in the message, whatever it is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
from msgspec import Meta

from rtformer_deploy.formats.conversion import convert, convert_strict, convert_tolerant, split_version, unknown_keys
from rtformer_deploy.formats.documents import DocumentError
from rtformer_deploy.types import Byte, FileName, Sha256


@dataclass(frozen=True, slots=True)
class Part:
    name: FileName
    sizes: tuple[Byte, Byte] = (0, 0)
    kind: Literal["a", "b"] | None = None
    table: Mapping[str, Byte] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Whole:
    parts: Annotated[tuple[Part, ...], Meta(min_length=1)]
    deep: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    sha256: Sha256 | None = None


PART = {"name": "x"}


def whole(**values: Any) -> dict[str, Any]:
    return {"parts": [PART, PART | values]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (3, "it is 3; expected a table"),
        ([], "it is a list of 0 values; expected a table"),
        ({}, "it has no parts"),
        ({"parts": []}, "parts is a list of 0 values; expected at least 1 value"),
        ({"parts": [PART, {}]}, "parts[1] has no name"),
        (whole(name=True), "parts[1].name is true; expected a text"),
        (whole(name=None), "parts[1].name is null; expected a text"),
        (whole(name="x" * 500), f"parts[1].name is '{'x' * 57}...'; expected a plain file name of at most 100 characters, "
                                "without separators and not beginning with a dot"),
        (whole(sizes=[1, 256]), "parts[1].sizes[1] is 256; expected a whole number, at most 255"),
        (whole(sizes=[1, -1]), "parts[1].sizes[1] is -1; expected a whole number, at least 0"),
        (whole(sizes=[1, 1.0]), "parts[1].sizes[1] is 1.0; expected a whole number"),
        (whole(sizes=[1, "1"]), "parts[1].sizes[1] is '1'; expected a whole number"),
        (whole(sizes=[1]), "parts[1].sizes is a list of 1 value; expected 2 values"),
        (whole(sizes={"a": 1}), "parts[1].sizes is a table of 1 key; expected a list"),
        (whole(kind="c"), "parts[1].kind is 'c'; expected one of a, b"),
        (whole(kind=3), "parts[1].kind is 3; expected one of a, b"),
        (whole(table={"a": 1, "b.c": 300, "d": 2}), "parts[1].table['b.c'] is 300; expected a whole number, at most 255"),
        (whole(table={"a": [], "b": []}), "parts[1].table.a is a list of 0 values; expected a whole number"),
        (whole(table={3: 3}), "parts[1].table has a key that it cannot have; expected a text"),
        ({"parts": [PART], "deep": {"a": {"b": 1}, "c": {"d": 2, "e": "x"}}}, "deep.c.e is 'x'; expected a number"),
        ({"parts": [PART], "deep": {"a": {"b": 10**400}}}, None),
        ({"parts": [PART], "sha256": "AB" * 32}, f"sha256 is '{('AB' * 32)[:57]}...'; expected 64 hexadecimal digits in lower case"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_path(data: Any, message: str | None) -> None:
    with pytest.raises(DocumentError) as error:
        convert(data, Whole)
    assert str(error.value) == message or message is None
    assert "`" not in str(error.value)


def test_values_are_those_of_the_type() -> None:
    assert convert({"parts": [PART | {"sizes": [1, 2]}], "deep": {"a": {"b": 1}}}, Whole) == Whole((Part("x", (1, 2)),), {"a": {"b": 1.0}})


def test_unknown_keys_are_found_at_any_depth() -> None:
    data = {"parts": [PART, PART | {"x": 1}], "deep": {"a": {}}, "y z": 3}
    assert unknown_keys(data, Whole) == ["parts[1].x", "['y z']"]
    with pytest.raises(DocumentError, match=r"^it has keys that mean nothing: parts\[1\]\.x, \['y z'\]$"):
        convert_strict(data, Whole)
    many = {f"k{index}": 0 for index in range(9)}
    with pytest.raises(DocumentError, match=r"nothing: k0, k1, k2, k3, k4 and 4 more$"):
        convert_strict({"parts": [PART], **many}, Whole)


def test_versions() -> None:
    good: dict[str, Any] = {"parts": [PART]}
    assert convert_strict(good | {"version": 2}, Whole, known=2) == convert_tolerant(good, Whole)[0] == Whole((Part("x"),))
    assert convert_tolerant(good | {"version": 1}, Whole)[1] is None
    with pytest.raises(DocumentError, match=r"it is of version 3, and this version of rtformer-deploy reads up to 2: install a newer"):
        convert_strict(good | {"version": 3}, Whole, known=2)
    assert convert_tolerant(good | {"version": 2}, Whole)[1] == "version 2, of which this version of rtformer-deploy does not read: nothing"
    with pytest.raises(DocumentError, match=r"it is of version 2, and only 1 is known here \(it has no parts\)"):
        convert_tolerant({"version": 2}, Whole)
    odd: list[Any] = [0, -1, True, 1.0, "1", None, [], 2**31]
    for version in odd:
        with pytest.raises(DocumentError, match=r"^version is .*; expected a whole number, at least 1"):
            split_version({"version": version})
