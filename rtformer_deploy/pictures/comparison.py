"""A comparison -> one self-contained HTML page: its picture, its tables, its notes, the environment. Nothing is fetched."""

from __future__ import annotations

from markupsafe import Markup

from ..comparison.result import Compared
from .page import render_page, rows_of
from .scatter import embed_scatter


def render_comparison(compared: Compared) -> str:
    """The page as text; comparison.html says what it looks like."""
    return render_page(
        "comparison.html",
        title=compared.title,
        picture=Markup(embed_scatter(compared)) if compared.points else None,
        tables=compared.tables,
        notes=compared.notes,
        environment=rows_of(compared.facts["environment"]),
    )
