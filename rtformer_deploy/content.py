"""Finds the content that is not Python: recipes and weights (models/), ranges (calibration/), CUDA sources (plugins/)."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parent


def content_dir(room: str) -> Path:
    """The folder of a room ("models", "calibration", "plugins"): the checkout's own, or the copy that the wheel carries."""
    if (_CHECKOUT / "pyproject.toml").is_file() and (_CHECKOUT / room).is_dir():
        return _CHECKOUT / room
    return _PACKAGE / "_content" / room
