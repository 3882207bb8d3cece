"""Parts -> one self-contained page of a folder's reports. Its script, which sorts tables, is the only one that may run on it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence

from .blocks import Part
from .page import file_text, render_page


def render_folder(title: str, subtitle: str, parts: Sequence[Part]) -> str:
    """The page as text; folder.html says what it looks like. The same parts give the same bytes."""
    script = file_text("sort.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return render_page("folder.html", title=title, subtitle=subtitle, parts=parts, script=script, script_hash=f"sha256-{digest}")
