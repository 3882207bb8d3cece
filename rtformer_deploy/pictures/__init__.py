"""Everything that is drawn: SVG, PNG and HTML.

SVG needs matplotlib, HTML needs Jinja2 too; the extra `report` brings both. The modules that draw import them, so they are imported
only when something is drawn. PNG (`changes`) needs neither.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from ..errors import MissingPackageError

#: What an SVG file and a page say near their beginning, so that a new one replaces an old one and nothing else.
SVG_MARK = "Created with rtformer-deploy"
PAGE_MARK = '<meta name="generator" content="rtformer-deploy">'

EXTRA = "report"
SVG = ("matplotlib",)
HTML = ("matplotlib", "jinja2")


def require_report(wanted_by: str, packages: Sequence[str] = SVG) -> None:
    """Raises MissingPackageError, with the pip command, if one of the packages is not installed; imports none of them."""
    package = _missing(packages)
    if package is not None:
        raise MissingPackageError(package, EXTRA, wanted_by)


def why_not_drawn(name: str, packages: Sequence[str] = SVG) -> str | None:
    """A picture's or a page's name -> one line that says why it cannot be drawn here and what to install; None if it can be drawn."""
    package = _missing(packages)
    return None if package is None else f"{name} is not drawn: {package} is not installed. Run: pip install 'rtformer-deploy[{EXTRA}]'"


def _missing(packages: Sequence[str]) -> str | None:
    return next((package for package in packages if importlib.util.find_spec(package) is None), None)
