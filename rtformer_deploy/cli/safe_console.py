"""rich's console, for text from files: strings are escaped before they are laid out, and never read as markup."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from .terminal import escape


class SafeConsole(Console):
    """A Console that escapes each string it prints; what is to have a colour says so with `style`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(escape(text), **options)


def safe_text(text: str, style: str = "") -> Text:
    """A string as part of a table."""
    return Text(escape(text), style)
