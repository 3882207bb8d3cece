"""The formats of one model side by side: the part of `compare` behind --formats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..comparison.result import Compared
from ..errors import UsageError
from ..types import Feedback

if TYPE_CHECKING:
    from .compare import CompareRequest


def compare_formats(request: CompareRequest, feedback: Feedback) -> Compared:
    """The request -> the formats of its model, measured in turn."""
    raise UsageError("compare --formats comes with another branch.")
