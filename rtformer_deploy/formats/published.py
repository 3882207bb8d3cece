"""What a network's authors or others have published about it: a table of a recipe's [published]. Figures of other machines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from ..types import Text


@dataclass(frozen=True, slots=True)
class Published:
    """One source: mIoU in percent on a `split` at a `size`, and frames a second on a `device`. What it does not say is None."""

    source: Text | None = None
    split: Text | None = None
    size: Text | None = None
    miou: Annotated[float, Meta(ge=0, le=100)] | None = None
    fps: Annotated[float, Meta(gt=0, le=1e6)] | None = None
    device: Text | None = None
