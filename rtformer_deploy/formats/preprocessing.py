"""How images are prepared for a model: what a ModelSpec, a recipe and ranges say about it in the same words, and whether they agree.

Documents say `resize_corners` and `scale` only if one of them is not as earlier versions assume, and are of a newer version then. So
earlier versions of rtformer-deploy read what they understand, and refuse or note the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ..types import Resize, frame_size, scaled_size

#: The fields that say it, in the order of a ModelSpec.
FIELDS = ("mean", "std", "resize", "resize_corners", "scale")
#: What documents of earlier versions do not say: frames were resized with half-pixel centres, to the input's size.
ASSUMED: Mapping[str, Any] = {"resize_corners": False, "scale": 1.0}

#: How far from a side another one is looked for. Scales of two digits have one within fifty.
_NEAR = 100


class Prepared(Protocol):
    """What says how images are prepared: Ranges, a ModelSpec, a Recipe."""

    @property
    def mean(self) -> tuple[float, float, float]: ...
    @property
    def std(self) -> tuple[float, float, float]: ...
    @property
    def resize(self) -> Resize: ...
    @property
    def resize_corners(self) -> bool: ...
    @property
    def scale(self) -> float: ...


def prepared(source: Prepared) -> dict[str, Any]:
    """The fields that say how images are prepared; two sources prepare them alike if these are equal."""
    return {name: getattr(source, name) for name in FIELDS}


def written(source: Prepared, values: Mapping[str, Any]) -> dict[str, Any]:
    """The plain values of a source -> the same without what earlier versions assume, if the source is as they assume."""
    return {name: value for name, value in values.items() if name not in ASSUMED or not _is_as_assumed(source)}


def needed_version(source: Prepared, newest: int) -> int:
    """The version of a document about a source: the `newest`, or the one before it, which does not say what is assumed."""
    return newest - 1 if _is_as_assumed(source) else newest


def preprocessing(source: Prepared) -> str:
    """How images are prepared, for a message; what is as usual is left out, except for mean, std and resize."""
    parts = [f"{name} {','.join(map(str, getattr(source, name)))}" for name in ("mean", "std")]
    parts.append(f"resize {source.resize}")
    parts += ["resize_corners true"] * source.resize_corners
    parts += [f"scale {source.scale:g}"] * (source.scale != 1)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def scale_fault(size: tuple[int, int], scale: float) -> str | None:
    """Why an input of (H, W) `size` is `scale` of no frame, and which size near it is of one, without a full stop; None if it is of one."""
    if all(_is_share(side, scale) for side in size):
        return None
    frame = "x".join(f"{side / scale:.1f}".removesuffix(".0") for side in size)
    fault = f"size {_text(size)} is scale {scale:g} of no frame, which would have {frame} pixels"
    height, width = (_nearest_share(side, scale) for side in size)
    if height is None or width is None:
        return fault
    return f"{fault}; {_text((height, width))} is that of {_text(frame_size((height, width), scale))}"


def _is_as_assumed(source: Prepared) -> bool:
    return all(getattr(source, name) == value for name, value in ASSUMED.items())


def _is_share(side: int, scale: float) -> bool:
    """Whether a side of an input is `scale` of a side of a frame: a whole number, from which `scaled_size` comes back to it."""
    (frame, _) = frame_size((side, side), scale)
    return abs(frame * scale - side) < 1e-6 and scaled_size((frame, frame), scale)[0] == side


def _nearest_share(side: int, scale: float) -> int | None:
    """The side of an input nearest to `side` that is `scale` of a side of a frame; None if there is none near."""
    near = (each for distance in range(_NEAR) for each in (side - distance, side + distance))
    return next((each for each in near if each > 0 and _is_share(each, scale)), None)


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
