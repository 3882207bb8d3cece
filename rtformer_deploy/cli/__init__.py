"""The command line: parses, calls one library function, prints. Commands load when they are asked for."""

from __future__ import annotations

from .group import main

__all__ = ["main"]
