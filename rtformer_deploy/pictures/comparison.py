"""A comparison -> one self-contained HTML page: its picture, its tables, its notes, the environment. Nothing is fetched."""

from __future__ import annotations

from markupsafe import Markup

from ..comparison.result import Compared
from . import PAGE_MARK
from .report import fact_rows, template
from .scatter import embed_scatter
from .style import css_variables


def render_comparison(compared: Compared) -> str:
    """The page as text; comparison.html says what it looks like."""
    return template("comparison.html").render(
        mark=Markup(PAGE_MARK),
        light=Markup(css_variables(dark=False)),
        dark=Markup(css_variables(dark=True)),
        title=compared.title,
        picture=Markup(embed_scatter(compared)) if compared.points else None,
        tables=compared.tables,
        notes=compared.notes,
        environment=fact_rows(compared.facts["environment"]),
    )
