"""Whoever resizes as a spec says does it in full: a call that gets a spec's `resize` gets its `resize_corners` too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

#: Where the picture lies in the input, and how half-pixel centres read logits, do not depend on it.
_WITHOUT = {"window", "output_axes"}


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def incomplete(call: ast.Call) -> bool:
    """Whether an argument is X.resize and none is X.resize_corners."""
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    values = [*call.args, *(keyword.value for keyword in call.keywords)]
    given = {(ast.unparse(value.value), value.attr) for value in values if isinstance(value, ast.Attribute)}
    return name not in _WITHOUT and any(attr == "resize" and (of, "resize_corners") not in given for of, attr in given)


def test_every_call_that_resizes_gets_both(root: Path) -> None:
    paths = [*(root / "rtformer_deploy").rglob("*.py"), *(root / "benchmarks").glob("*.py")]
    texts = {path.name: text for path in paths if ".resize" in (text := path.read_text())}
    found = [(name, call.lineno) for name, text in texts.items() for call in calls(ast.parse(text)) if incomplete(call)]
    assert found == []


def test_a_call_that_forgets_it_is_found() -> None:
    lines = "a(s.size, s.resize)\na(s.resize, corners=s.resize_corners)\na(s.resize, corners=t.resize_corners)\nwindow(s.resize)"
    assert [incomplete(call) for call in calls(ast.parse(lines))] == [True, False, True, False]
