"""HTML pages from templates: one file, light or dark as the reader prefers, nothing fetched. What a page is given is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..errors import DeployError
from ..files import read_text
from . import PAGE_MARK
from .style import css_variables
from .text import clean


def render_page(template: str, **values: Any) -> str:
    """A template of this folder that extends base.html, and its values -> the page as text."""
    colours = {"light": Markup(css_variables(dark=False)), "dark": Markup(css_variables(dark=True))}
    return _environment().get_template(template).render(mark=Markup(PAGE_MARK), **colours, **values)


def file_text(name: str) -> Markup:
    """A file of this folder, as it is."""
    return Markup(read_text(Path(__file__).parent / name, DeployError, "a part of a page"))


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, finalize=_printable,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip


def _printable(value: object) -> object:
    """A template value -> what is written: text as one line of characters that HTML allows, markup unchanged."""
    return value if isinstance(value, Markup) else clean(str(value))


def rows_of(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """JSON facts as names and texts, without those that are None."""
    return [(key.replace("_", " "), text_of(value)) for key, value in facts.items() if value is not None]


def text_of(value: object) -> str:
    """A JSON value in one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
